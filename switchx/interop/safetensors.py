"""Arrays of safetensors files, read part by part and written one by one.

The format's own library reads: it checks a header against its file before anything is used. It
writes only what is in memory all at once, so writing is ours: eight bytes with the header's
length, the header as JSON, the arrays' bytes without gaps.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from switchx.errors import UserError

# Those that float32 holds exactly.
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16), "F16": np.dtype(np.float16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array within a file."""

    file: Path
    name: str
    shape: tuple[int, ...]

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """A part of the array, in its own dtype. Only that part is kept in memory."""
        # Opened anew each time: pages of a mapping that stays would count as memory in use.
        with safe_open(self.file, framework="numpy") as file:
            return file.get_slice(self.name)[index] if index else file.get_tensor(self.name)


def read_header(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, by name.

    Raises:
      UserError: the file cannot be read, its header does not describe it, or an array is of a
        type that float32 cannot hold.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            types = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({str(error).partition(':')[0]}).") from None
    except SafetensorError as error:
        reason = str(error).splitlines()[0].removeprefix("Error while deserializing header: ")
        raise UserError(
            f"{path} is cut short, damaged or no safetensors file ({reason[:200]})."
        ) from None
    for name, dtype in types.items():
        if dtype not in DTYPES:
            accepted = ", ".join(DTYPES)
            raise UserError(f"{path}: tensor {name[:200]!r} is {dtype}; accepted are {accepted}.")
    return {name: Tensor(path, name, shape) for name, shape in shapes.items()}


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
