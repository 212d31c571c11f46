"""What Orbax does with paths, in a store that has objects and no folders."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any, NoReturn

from etils.epath import backend

from switchx import storage
from switchx.training.checkpoints.identity import COMMITTED, is_step

_REMEMBERED = 1000  # names at most that this process made last


class _Objects(backend.Backend):
    """Each by few requests, through `switchx.storage`.

    Nobody is asked about what this process made and wrote in a checkpoint, until it is whole: no
    other process writes a file of the same name, and none removes it.
    """

    def __init__(self) -> None:
        self._made: dict[str, None] = {}  # folders
        self._written: dict[str, bytes] = {}
        self._listed: dict[str, set[str]] | None = None

    @contextlib.contextmanager
    def open(self, path: Any, mode: str) -> Iterator[Any]:  # type: ignore[override]
        file: Any = io.BytesIO() if "b" in mode else io.StringIO()
        if "w" in mode:
            yield file
            self._write(os.fspath(path), file.getvalue())
            return
        content = self._written.get(os.fspath(path)) or storage.read_if_there(path, "MODEL_DIR")
        if content is None:
            raise FileNotFoundError(path)
        yield io.BytesIO(content) if "b" in mode else io.StringIO(content.decode())

    def _write(self, path: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        storage.write_whole(path, data)
        self._written[path] = data
        folder, name = os.path.split(path)
        if name == COMMITTED and is_step(os.path.basename(folder)):
            self._forget(folder)
        for known in (self._made, self._written):
            for oldest in list(known)[:-_REMEMBERED]:
                known.pop(oldest, None)

    def exists(self, path: Any) -> bool:
        if os.fspath(path) in self._made or os.fspath(path) in self._written:
            return True
        folder, name = os.path.split(os.fspath(path))
        if folder in self._made and is_step(os.path.basename(folder)):
            return False  # the host that makes a step's folder makes what lies directly in it
        return name in self._names(folder)

    def isdir(self, path: Any) -> bool:
        return os.fspath(path) in self._made or bool(self._names(os.fspath(path)))

    def listdir(self, path: Any) -> list[str]:
        return sorted(self._names(os.fspath(path)))

    @contextlib.contextmanager
    def unchanging(self) -> Iterator[None]:
        """Within, each folder is listed once."""
        self._listed = {}
        try:
            yield
        finally:
            self._listed = None

    def _names(self, folder: str) -> set[str]:
        known = self._listed
        names = None if known is None else known.get(folder)
        if names is None:
            names = storage.names_in(folder, "MODEL_DIR")
            if known is not None:
                known[folder] = names
        return names

    def mkdir(self, path: Any, *, exist_ok: bool = False, mode: int | None = None) -> None:
        self._made[os.fspath(path)] = None

    makedirs = mkdir

    def rmtree(self, path: Any) -> None:
        remove_checkpoint(path)
        self._forget(os.fspath(path))

    def remove(self, path: Any) -> None:
        name = os.fspath(path)
        if os.path.dirname(name) in self._made and name not in self._written:
            raise FileNotFoundError(name)
        storage.remove(path)
        self._written.pop(name, None)

    def _forget(self, folder: str) -> None:
        for known in (self._made, self._written):
            for name in [name for name in known if f"{name}/".startswith(f"{folder}/")]:
                known.pop(name, None)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("an object store cannot do this")

    glob = walk = rename = replace = copy = stat = _refuse  # type: ignore[assignment]


OBJECTS = _Objects()
unchanging = OBJECTS.unchanging


def remove_checkpoint(path: storage.AnyPath) -> None:
    """Removes a checkpoint, so that what a kill leaves of it is taken for an unfinished one."""
    storage.remove(f"{os.fspath(path)}/{COMMITTED}")
    storage.remove(path)
