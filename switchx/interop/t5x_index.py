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

from switchx import storage
from switchx.data.files.formats import check_fetched
from switchx.errors import UserError

INDEX = "checkpoint"
_OF_ORBAX = ("state", "_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA")
# Switch-C's index has about 3,000 arrays in 2 MB.
_MAX_INDEX_BYTES = 256 << 20
_MAX_DEPTH = 32
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DTYPES = ("float32", "bfloat16")
_INLINE_DTYPES = ("float32", "int32", "int64")


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
        found = f"{store.dtype.name}{list(store.shape)}"
        if store.shape != self.shape:
            raise ValueError(f"it holds {found}, and the index says {list(self.shape)}")
        if store.dtype.name not in _DTYPES:
            raise ValueError(f"it holds {found}, and {' or '.join(_DTYPES)} is read")
        return store

    def _unreadable(self, error: Exception) -> UserError:
        reason = storage.explain(error).split(" [tensorstore_spec=")[0][:300]
        return UserError(f"{self.name} of the T5X checkpoint cannot be read: {reason}.")


Array = InlineArray | StoredArray


def read_index(path: Path) -> dict[str, Array]:
    """Every array of a checkpoint folder by its name: "target/encoder/...".

    No array is opened.

    Raises:
      UserError: there is no index, it is damaged, or a name in it leaves the folder.
    """
    if not storage.is_file(path / INDEX, "--input"):
        raise UserError(f"--input={path} holds no file named {INDEX}{_nearby(path)}.")
    content = storage.read_bytes(path / INDEX, "--input", _MAX_INDEX_BYTES)
    check_fetched(content, path / INDEX, "--input")
    tree = _unpack(content, path)
    if not isinstance(tree, dict) or not isinstance(tree.get("optimizer"), dict):
        raise UserError(f"{path}/{INDEX} is not the index of a T5X checkpoint.")
    return dict(_arrays(tree["optimizer"], (), path))


def _nearby(path: Path) -> str:
    """Advice for who named another place than such a folder."""
    if path.name == INDEX and storage.is_file(path, "--input"):
        return f", but is one: name the folder {path.parent}"
    there = storage.names_in(path, "--input")
    if there & set(_OF_ORBAX):
        return (
            ", but what Orbax writes, also for later versions of T5X: have T5X save with its own "
            "checkpoints.Checkpointer"
        )
    steps = sorted(name for name in there if name.startswith("checkpoint_"))
    whole = [step for step in steps if storage.is_file(path / step / INDEX, "--input")]
    return f", but {whole[-1]} in it does: name that" if whole else ""


def _unpack(data: bytes, path: Path) -> Any:
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


def _arrays(node: Any, name: tuple[str, ...], path: Path) -> Iterator[tuple[str, Array]]:
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


def _stored(spec: dict, name: str, path: Path) -> StoredArray:
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


def _stays(path: Path, folder: str) -> bool:
    """Whether a folder really lies in a local checkpoint: it may be a link to elsewhere."""
    return storage.is_remote(path) or (path / folder).resolve().parent == path.resolve()


def _kvstore(path: Path, folder: str) -> dict[str, Any]:
    if storage.is_remote(path):
        return storage.kvstore_spec(path / folder)
    return {"driver": "file", "path": str(path.resolve() / folder)}
