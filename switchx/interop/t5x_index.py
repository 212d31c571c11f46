"""The files of a T5X checkpoint: a msgpack index named `checkpoint`, and a zarr folder per array.

The index nests arrays as the model nests parameters. Each is either inline, as flax.serialization
writes it, or a TensorStore specification, of which only what describes the array and the name of
its folder is used. Everything in it is checked: it may come from a stranger.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from switchx.errors import RunError, UserError

INDEX = "checkpoint"
# Switch-C's index has about 3,000 arrays in 2 MB.
_MAX_INDEX_BYTES = 256 << 20
_MAX_DEPTH = 32
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DTYPES = ("float32", "bfloat16")
_INLINE_DTYPES = ("float32", "int32", "int64")
_WAIT = 120.0  # seconds for one small remote file


@dataclasses.dataclass(frozen=True)
class InlineArray:
    """An array within the index."""

    value: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.value[index]


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a zarr folder; opened when its first part is read."""

    name: str
    shape: tuple[int, ...]
    kvstore: dict[str, Any]

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part of it. Only the chunks that hold it are read.

        Raises:
          UserError: the folder is missing, damaged, or not what the index says.
        """
        try:
            return self._store[index].read().result()
        except (ValueError, OSError) as error:  # what TensorStore raises
            raise self._unreadable(error) from None

    @functools.cached_property
    def _store(self) -> Any:
        # A missing chunk would otherwise be read as zeros.
        spec = {"driver": "zarr", "kvstore": self.kvstore, "fill_missing_data_reads": False}
        store = tensorstore.open(spec, open=True, read=True).result()
        if store.shape != self.shape or store.dtype.name not in _DTYPES:
            found = f"{store.dtype.name}{list(store.shape)}"
            raise ValueError(f"it holds {found}, and the index says {list(self.shape)}")
        return store

    def _unreadable(self, error: Exception) -> UserError:
        reason = str(error).split(" [tensorstore_spec=")[0].splitlines()[0][:300]
        return UserError(f"{self.name} of the T5X checkpoint cannot be read: {reason}.")


Array = InlineArray | StoredArray


def read_index(path: str) -> dict[str, Array]:
    """Every array of a checkpoint folder, local or gs://, by its name: "target/encoder/...".

    No array is opened.

    Raises:
      UserError: there is no index, it is damaged, or a name in it leaves the folder.
    """
    tree = _unpack(_read_file(path, INDEX), path)
    if not isinstance(tree, dict) or not isinstance(tree.get("optimizer"), dict):
        raise UserError(f"{path}/{INDEX} is not the index of a T5X checkpoint.")
    return dict(_arrays(tree["optimizer"], (), path))


def _read_file(path: str, name: str) -> bytes:
    if path.startswith("gs://"):
        return _read_remote(path, name)
    try:
        with (Path(path) / name).open("rb") as file:
            return file.read(_MAX_INDEX_BYTES + 1)
    except OSError:
        raise UserError(f"{path} holds no file named {name}{_nearby(path)}.") from None


def _nearby(path: str) -> str:
    """Advice for who named the folder above."""
    try:
        steps = sorted(p.parent.name for p in Path(path).glob(f"checkpoint_*/{INDEX}"))
    except OSError:
        return ""
    return f", but {steps[-1]} in it does: name that" if steps else ""


def _read_remote(path: str, name: str) -> bytes:
    try:
        store = tensorstore.KvStore.open(_kvstore(path, "")).result(timeout=_WAIT)
        found = store.read(name).result(timeout=_WAIT)
    except (ValueError, OSError, TimeoutError) as error:
        reason = (str(error).splitlines() or ["no answer"])[0][:200]
        raise RunError(f"{path}/{name} cannot be read: {reason}.") from None
    if found.state != "value":
        raise UserError(f"{path} holds no file named {name}.")
    return found.value


def _unpack(data: bytes, path: str) -> Any:
    if len(data) > _MAX_INDEX_BYTES:
        raise UserError(f"{path}/{INDEX} is too large to be the index of a T5X checkpoint.")
    try:
        return serialization.msgpack_restore(data)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UserError(
            f"{path}/{INDEX} is damaged: it cannot be read as the index of a T5X checkpoint."
        ) from None


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"shape {shape!r}")
    return tuple(shape)


def _arrays(node: Any, name: tuple[str, ...], path: str) -> Iterator[tuple[str, Array]]:
    own = "/".join(name)
    if isinstance(node, np.ndarray | np.generic) and node.dtype.name in _INLINE_DTYPES:
        yield own, InlineArray(np.asarray(node))
    elif isinstance(node, dict) and "driver" in node:
        yield own, _stored(node, own, path)
    elif isinstance(node, dict) and len(name) < _MAX_DEPTH:
        for key, value in node.items():
            yield from _arrays(value, (*name, str(key)), path)
    else:
        raise UserError(f"{path}/{INDEX} is damaged: {own[:200]} is not an array.")


def _stored(spec: dict, name: str, path: str) -> StoredArray:
    try:
        # Older versions of TensorStore wrote the path beside `kvstore`.
        folder = spec["kvstore"].get("path", spec.get("path"))
        shape = _shape(spec["metadata"]["shape"])
        known = spec["driver"] == "zarr" and isinstance(folder, str)
    except (KeyError, TypeError, AttributeError, ValueError):
        known = False
    if not known:
        raise UserError(f"{path}/{INDEX} is damaged: {name} has no usable zarr specification.")
    folder = folder.removesuffix("/")
    if not _FOLDER.fullmatch(folder) or not _stays(path, folder):
        raise UserError(
            f"{path}/{INDEX} names {folder[:200]!r} for {name}, which is not a folder within "
            "the checkpoint."
        )
    if math.prod(shape) > 1 << 48:
        raise UserError(f"{path}/{INDEX} is damaged: {name} has the shape {list(shape)}.")
    return StoredArray(name, shape, _kvstore(path, folder))


def _stays(path: str, folder: str) -> bool:
    """Whether a folder really lies in a local checkpoint: it may be a link to elsewhere."""
    if path.startswith("gs://"):
        return True
    return (Path(path) / folder).resolve().parent == Path(path).resolve()


def _kvstore(path: str, folder: str) -> dict[str, Any]:
    if not path.startswith("gs://"):
        return {"driver": "file", "path": str(Path(path).resolve() / folder)}
    bucket, _, prefix = path.removeprefix("gs://").partition("/")
    inside = "".join(f"{part}/" for part in (prefix.strip("/"), folder) if part)
    return {"driver": "gcs", "bucket": bucket, "path": inside}
