"""The paths that Orbax is given, on this machine or at a URL."""

import fnmatch
import glob
import os
from collections.abc import Iterator
from typing import Any

from etils import epath
from etils.epath import backend
from orbax.checkpoint._src.path import gcs_utils

from switchx import storage
from switchx.training.checkpoints.objects import OBJECTS

# Tried for two minutes where a store is busy or cannot be reached; TensorStore alone tries for 15.
_RETRIES = {"max_retries": 8, "initial_delay": "1s", "max_delay": "32s"}
_PLACE = "gs://url:"  # no bucket has a colon in its name


class RunPath(type(epath.Path("/"))):  # type: ignore[misc]
    """A path of a checkpoint or something in it: all but arrays goes through `switchx.storage`."""

    @property
    def _backend(self) -> backend.Backend:  # etils would import TensorFlow for a URL
        return OBJECTS if storage.is_remote(self) else super()._backend

    def as_posix(self) -> str:
        """What Orbax makes TensorStore's specification of, which it asks `_kvstore` for.

        One slash behind gs:, to which it adds another there, and so takes this for a bucket nowhere
        else: it would ask for permissions that a run does not need.
        """
        if not storage.is_remote(self):
            return super().as_posix()
        scheme, rest = os.fspath(self).split("://", 1)
        return f"{_PLACE}{scheme}/{rest}".replace("//", "/", 1)

    def glob(self, pattern: str) -> Iterator[Any]:
        """Lists what lies in the folder, whose own name may hold *, ? and [ ]."""
        if storage.is_remote(self):
            return (self / name for name in fnmatch.filter(sorted(OBJECTS.listdir(self)), pattern))
        paths = glob.glob(os.path.join(glob.escape(str(self)), pattern))
        return (self._new(path) for path in paths)


def _kvstore(path: str) -> dict[str, Any]:
    """TensorStore's specification of a path as Orbax completed it."""
    if not path.startswith(_PLACE):
        return _orbax_kvstore(path)
    spec = storage.kvstore_spec(path.removeprefix(_PLACE).replace("/", "://", 1))
    retries = {f"{'s3' if spec['driver'] == 's3' else 'gcs'}_request_retries": _RETRIES}
    return {**spec, "path": spec["path"].removesuffix("/"), **retries}


# Orbax has no hook for it. It knows gs:// and no s3://, and reads the former as browsers do, where
# what follows # or ? is no part of a name.
_orbax_kvstore = gcs_utils.get_kvstore_for_gcs
gcs_utils.get_kvstore_for_gcs = _kvstore
