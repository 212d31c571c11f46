"""The safetensors format: a header that says where each array lies, then the arrays.

Eight bytes with the header's length, the header as JSON, the arrays' bytes without gaps. Reading
is by parts of an array and writing is array by array, so neither holds a file in memory. Nothing
in a file is trusted: what its header says is checked against the file before it is used.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import jax.numpy as jnp
import numpy as np

from switchx.errors import UserError

# Those that float32 holds exactly.
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16), "F16": np.dtype(np.float16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array within a file; `offset` is its first byte's place in the file."""

    file: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A part of the array, in its own dtype. Only that part is kept in memory."""
        # Mapped anew each time: pages of a mapping that stays would count as memory in use.
        whole = np.memmap(self.file, self.dtype, "r", self.offset, self.shape)
        return np.array(whole[index])


def read_header(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, by name.

    Raises:
      UserError: the file cannot be read, or its header does not describe it.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            text, start = _header(file, size, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        entries = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: its header is not JSON with unique names.") from None
    if not isinstance(entries, dict):
        raise UserError(f"{path} is damaged: its header is not a JSON object.")
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, entry, start) for name, entry in entries.items()}
    _check_covers(path, tensors, start, size)
    return tensors


def _header(file: BinaryIO, size: int, path: Path) -> tuple[bytes, int]:
    """The header's text, and where the arrays begin."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise UserError(f"{path} is cut short or no safetensors file: its header does not fit it.")
    if length > MAX_HEADER_BYTES:
        raise UserError(f"{path} has a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,}.")
    return file.read(length), 8 + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("repeated name")
    return dict(pairs)


def _tensor(path: Path, name: str, entry: Any, start: int) -> Tensor:
    where = f"{path} is damaged: tensor {name[:200]!r}"
    if not isinstance(entry, dict):
        raise UserError(f"{where} is not described by a JSON object.")
    shape, offsets, dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not (_naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise UserError(f"{where} has no shape and two data_offsets of whole numbers from 0.")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        accepted = ", ".join(DTYPES)
        raise UserError(f"{path}: tensor {name[:200]!r} is {dtype!r}; accepted are {accepted}.")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise UserError(f"{where} of shape {shape} and {dtype} takes {end - begin} bytes.")
    return Tensor(path, start + begin, DTYPES[dtype], tuple(shape))


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_covers(path: Path, tensors: Mapping[str, Tensor], start: int, size: int) -> None:
    """The arrays must follow each other to the end of the file: no overlap, no gap."""
    reached = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, _bytes(item[1]))):
        if tensor.offset != reached:
            what = "overlaps the one before it" if tensor.offset < reached else "leaves a gap"
            raise UserError(f"{path} is damaged: tensor {name[:200]!r} {what}.")
        reached += _bytes(tensor)
    if reached != size:
        what = "cut short" if reached > size else "longer than its tensors"
        raise UserError(f"{path} is damaged: it is {what} ({size:,} bytes for {reached:,}).")


def _bytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * tensor.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Entry:
    """An array to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_file(path: Path, entries: Sequence[Entry], arrays: Iterable[np.ndarray]) -> None:
    """Writes a file whose arrays come one by one, in the order of `entries`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
    begin = 0
    for entry in entries:
        end = begin + entry.num_bytes
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry, array in zip(entries, arrays, strict=True):
            if (array.dtype, array.shape) != (entry.dtype, entry.shape):
                raise ValueError(f"{entry} announced, {array.dtype} {array.shape} to be written")
            # As bytes: buffers do not know bfloat16.
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
