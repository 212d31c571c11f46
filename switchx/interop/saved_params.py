"""Parameters of a checkpoint, read part by part."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from switchx.errors import RunError
from switchx.interop.source import places

Box = tuple[slice, ...]


class SavedParams:
    """The parameters in the folder that `training.checkpoints.params_folder` returns.

    Orbax stores an array in chunks, each what one device held when it was saved. Chunks are
    compressed, so the least that can be read is one; `boxes` is how to read each just once.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            self._zarr3 = json.loads((folder / "_METADATA").read_bytes()).get("use_zarr3", False)
        except (OSError, ValueError, AttributeError) as error:
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
        """Each array in a box of `boxes`, with its place in the leading dimensions."""
        part = self._open(path)[box].read().result() if box else self._open(path).read().result()
        for place in places(box):
            yield place, part[tuple(n - s.start for n, s in zip(place, box, strict=True))]

    def _open(self, path: tuple[str, ...]) -> Any:
        base = f"file://{self._folder}/"
        spec = {
            "driver": "zarr3" if self._zarr3 else "zarr",
            "kvstore": {"driver": "ocdbt", "base": base, "path": f"{'.'.join(path)}/"},
        }
        try:
            return ts.open(spec, open=True, read=True).result()
        except ValueError as error:
            name = "/".join(path)
            reason = str(error).splitlines()[0][:200]
            raise RunError(
                f"Parameter {name} cannot be read from {self._folder} ({reason})."
            ) from None
