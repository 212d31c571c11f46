"""Arrays of safetensors files, read part by part and written one by one.

The format's own library checks a header against its file before anything is used: of a file at a
URL, of which it needs all, it sees one on this machine that has the same header and size, and
holes where the arrays are. It writes only what is in memory all at once, so writing is ours: eight
bytes with the header's length, the header as JSON, the arrays' bytes without gaps.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from switchx import storage
from switchx.data.files.formats import check_fetched
from switchx.errors import UserError

# Those that float32 holds exactly.
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16), "F16": np.dtype(np.float16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_FIRST = 2**16  # bytes read at first: a header of hundreds of arrays
_MOST_HEADER = 8 + 10**8  # the library's own limit
_PART, _AT_ONCE = 2**24, 4  # bytes of one request, requests at once


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array within a file.

    Attributes:
      begin: of the array's first byte in the file.
    """

    file: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A part of the array, in its own dtype. No other rows than those are read.

        Raises:
          UserError: the file cannot be read any more.
        """
        rows, rest = (index[0], index[1:]) if index else (slice(None), ())
        if not self.shape:
            return _bytes(self.file, self.begin, self.dtype.itemsize).view(self.dtype).reshape(())
        start, stop, _ = rows.indices(self.shape[0])
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        data = _bytes(self.file, self.begin + start * row, max(stop - start, 0) * row)
        array = data.view(self.dtype).reshape(-1 if row else stop - start, *self.shape[1:])
        return array[(slice(None), *rest)]


def _bytes(path: Path, begin: int, count: int) -> np.ndarray:
    """Bytes of a file, as numbers; of a URL a few parts at a time."""
    out = np.empty(count, np.uint8)
    if not storage.is_remote(path):
        with storage.read_errors(path, "--input"), path.open("rb") as file:
            file.seek(begin)
            if file.readinto(out.data) != count:
                raise OSError("it ends too early")
        return out
    for first in range(0, count, _AT_ONCE * _PART):
        last = min(first + _AT_ONCE * _PART, count)
        cuts = [*range(first, last, _PART), last]
        pairs = list(itertools.pairwise(cuts))
        parts = [storage.Part(path, begin + at, begin + end) for at, end in pairs]
        for (at, end), part in zip(pairs, storage.read_parts(parts, "--input"), strict=True):
            out[at:end] = np.frombuffer(part, np.uint8)
    return out


def read_header(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, by name.

    Raises:
      UserError: the file cannot be read, its header does not describe it, or an array is of a
        type that float32 cannot hold.
    """
    size = storage.size_of(path, "--input")
    if size is None:
        raise UserError(f"--input leads to {str(path)!r}, which cannot be read: it is not there.")
    header = _header(path, size)
    check_fetched(header, path, "--input")
    with _checkable(path, header, size) as file:
        try:
            with safe_open(file, framework="numpy") as checked:
                names = list(checked.keys())
        except OSError as error:
            raise UserError(f"{path} cannot be read ({str(error).partition(':')[0]}).") from None
        except SafetensorError as error:
            reason = str(error).splitlines()[0].removeprefix("Error while deserializing header: ")
            raise UserError(
                f"{path} is cut short, damaged or no safetensors file ({reason[:200]})."
            ) from None
    entries = json.loads(header[8:])
    for name in names:
        dtype = entries[name]["dtype"]
        if dtype not in DTYPES:
            accepted = ", ".join(DTYPES)
            raise UserError(f"{path}: tensor {name[:200]!r} is {dtype}; accepted are {accepted}.")
    return {name: _tensor(path, name, entries[name], len(header)) for name in names}


def _tensor(path: Path, name: str, entry: dict[str, Any], data: int) -> Tensor:
    begin = data + entry["data_offsets"][0]
    return Tensor(path, name, DTYPES[entry["dtype"]], tuple(entry["shape"]), begin)


def _header(path: Path, size: int) -> bytes:
    """The length of a file's header and the header, as far as there is one."""
    first = _bytes(path, 0, min(size, _FIRST)).tobytes()
    whole = min(8 + int.from_bytes(first[:8], "little"), size, _MOST_HEADER)
    if whole <= len(first):
        return first[:whole]
    return first + _bytes(path, len(first), whole - len(first)).tobytes()


@contextlib.contextmanager
def _checkable(path: Path, header: bytes, size: int) -> Iterator[Path]:
    """A file of this machine with a file's header and size."""
    if not storage.is_remote(path):
        yield path
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(header)
        file.truncate(size)
        file.flush()
        yield Path(file.name)


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
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
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
