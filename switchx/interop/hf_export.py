"""Writes a checkpoint as a folder that transformers loads."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from switchx.interop.hf_config import check_exportable, write_config
from switchx.interop.hf_files import CONFIG, WEIGHTS, WEIGHTS_INDEX
from switchx.interop.hf_names import LOGITS, TABLE, Piece, pieces
from switchx.interop.hf_names import Path as ParamPath
from switchx.interop.hf_rows import exchanged
from switchx.interop.safetensors import DTYPES, Entry, write_file
from switchx.interop.saved_params import Box, SavedParams
from switchx.interop.source import SpecialIds, places
from switchx.model import Model, ModelConfig

_DTYPES = {"float32": DTYPES["F32"], "bfloat16": DTYPES["BF16"]}


def export(
    config: ModelConfig,
    saved: SavedParams,
    longest: int,
    folder: Path,
    max_shard_bytes: int,
    dtype: str,
    ids: SpecialIds,
) -> list[str]:
    """Writes config.json and the tensors, of which only a few are in memory at a time.

    Args:
      longest: tokens of the longest row; see `hf_config.write_config`.
      max_shard_bytes: of the tensors in one file; a larger tensor has a file of its own.
      dtype: of the tensors, "float32" or "bfloat16" (rounded to the nearest).
      ids: of the vocabulary's file, in whose order the embedding's rows are written.

    Returns:
      The names of the files with tensors.

    Raises:
      UserError: transformers cannot represent the model.
      RunError: the checkpoint is damaged.
    """
    check_exportable(config)
    shapes = Model.of(config).shapes
    plan = list(_plan(config, saved))
    order = [piece for _, _, own in plan for piece in own]
    entries = [
        Entry(name, _DTYPES[dtype], piece.shape(shapes))
        for piece in order
        for name in (piece.name, *piece.copies)
    ]
    shards = cut(entries, max_shard_bytes)
    arrays = _arrays(saved, plan, _DTYPES[dtype], ids.pad)
    names = [WEIGHTS] if len(shards) == 1 else _numbered(len(shards))
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / name, shard, itertools.islice(arrays, len(shard)))
    saved.check()
    if len(shards) > 1:
        _write_json(folder / WEIGHTS_INDEX, _index(names, shards))
    written = write_config(config, longest, dtype, ids)
    _write_json(folder / CONFIG, written)
    if not config.encoder_alone:
        special = {name: written[name] for name in written if name.endswith("_token_id")}
        _write_json(folder / "generation_config.json", special)
    return names


def cut(entries: list[Entry], most: int) -> list[list[Entry]]:
    """Consecutive parts of at most so many bytes, or of one entry that is larger."""
    shards: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if not shards or entry.num_bytes > room:
            shards.append([])
            room = most
        shards[-1].append(entry)
        room -= entry.num_bytes
    return shards


Step = tuple[ParamPath, Box, list[Piece]]


def _plan(config: ModelConfig, saved: SavedParams) -> Iterator[Step]:
    """What is read at a time, and the tensors it holds: the order of the files."""
    by_path: dict[ParamPath, dict[tuple[int, ...], Piece]] = {}
    for piece in pieces(config):
        by_path.setdefault(piece.path, {})[piece.place] = piece
    for path, own in by_path.items():
        for box in saved.boxes(path, len(next(iter(own)))):
            yield path, box, [own[place] for place in places(box)]


def _arrays(
    saved: SavedParams, plan: list[Step], dtype: np.dtype, pad: int
) -> Iterator[np.ndarray]:
    for path, box, own in plan:
        for piece, (_, array) in zip(own, saved.read(path, box), strict=True):
            array = (array.T if piece.transposed else array).astype(dtype, copy=False)
            if pad and piece.name in (TABLE, LOGITS):
                array = exchanged(array, pad)
            yield from [array] * (1 + len(piece.copies))


def _numbered(count: int) -> list[str]:
    stem, _, ending = WEIGHTS.partition(".")
    return [f"{stem}-{i:05d}-of-{count:05d}.{ending}" for i in range(1, count + 1)]


def _index(names: list[str], shards: list[list[Entry]]) -> dict[str, object]:
    pairs = zip(names, shards, strict=True)
    return {
        "metadata": {"total_size": sum(entry.num_bytes for shard in shards for entry in shard)},
        "weight_map": {entry.name: name for name, shard in pairs for entry in shard},
    }


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
