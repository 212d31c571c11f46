"""Parameters of a checkpoint, read part by part."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.interop.source import places
from switchx.training.checkpoints.fingerprints import sums_of_part, text

Box = tuple[slice, ...]


class SavedParams:
    """The parameters in a folder, which `training.checkpoints.saved_params` finds.

    Orbax stores an array in chunks, each what one device held when it was saved. Chunks are
    compressed, so the least that can be read is one; `boxes` is how to read each just once.
    """

    def __init__(self, folder: Path, fingerprints: Mapping[str, str]):
        """`fingerprints` are those of the whole checkpoint's arrays; see `check`."""
        self._folder, self._fingerprints = folder, fingerprints
        self._sums: dict[tuple[str, ...], np.ndarray] = {}
        try:
            metadata = storage.read_bytes(folder / "_METADATA", "MODEL_DIR")
            self._zarr3 = json.loads(metadata).get("use_zarr3", False)
        except (UserError, ValueError, AttributeError) as error:
            raise RunError(f"The checkpoint in {folder} cannot be read ({error}).") from None

    def boxes(self, path: tuple[str, ...], leading: int) -> Iterator[Box]:
        """The parameter's first `leading` dimensions, cut as the chunks are."""
        array = self._open(path)
        ranges = [
            [slice(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip(
                array.shape[:leading], array.chunk_layout.read_chunk.shape[:leading], strict=True
            )
        ]
        return itertools.product(*ranges)

    def read(self, path: tuple[str, ...], box: Box) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Each array in a box of `boxes`, with its place in the leading dimensions.

        Raises:
          RunError: the files are damaged; where they only hold other numbers, `check` says so.
        """
        array = self._open(path)
        try:
            part = array[box].read().result() if box else array.read().result()
        except ValueError as error:
            raise self._unreadable(path, error) from None
        start = [s.start for s in box] + [0] * (array.ndim - len(box))
        before = self._sums.get(path, np.zeros(2, np.uint32))
        self._sums[path] = before + sums_of_part(part, start, array.shape)
        for place in places(box):
            yield place, part[tuple(n - s.start for n, s in zip(place, box, strict=True))]

    def check(self) -> None:
        """Raises RunError where a parameter whose boxes were all read once is not as saved."""
        for path, sums in self._sums.items():
            array, name = self._open(path), "/".join(("params", *path))
            leaf = jax.ShapeDtypeStruct(array.shape, array.dtype.numpy_dtype)
            if self._fingerprints.get(name) != text(leaf, sums):
                raise RunError(
                    f"The checkpoint in {self._folder} is damaged ({name} is not what was saved)."
                )

    def _open(self, path: tuple[str, ...]) -> Any:
        base: dict[str, Any] = {"driver": "file", "path": f"{self._folder}/"}
        if storage.is_remote(self._folder):
            base = storage.kvstore_spec(self._folder)
        spec = {
            "driver": "zarr3" if self._zarr3 else "zarr",
            "kvstore": {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"},
        }
        try:
            return ts.open(spec, open=True, read=True).result()
        except ValueError as error:
            raise self._unreadable(path, error) from None

    def _unreadable(self, path: tuple[str, ...], error: Exception) -> RunError:
        name, reason = "/".join(path), storage.explain(error)[:200]
        return RunError(f"Parameter {name} cannot be read from {self._folder} ({reason}).")
