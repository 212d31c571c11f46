"""The run directory: made or refused before anything is computed, and what is written at start."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import switchx
from switchx import hosts, storage
from switchx.errors import RunError, UserError
from switchx.model import Model
from switchx.sharding import describe
from switchx.terminal import table
from switchx.training.placing import abstract_params, bytes_per_device
from switchx.training.resets import NO_RESETS, Resets
from switchx.training.run_reader import (
    FORMAT,
    FORMAT_FILE,
    START_FILE,
    check_format,
    check_no_part_of_a_run,
)
from switchx.training.state import Setup


def prepare(model_dir: str | Path, token: str = "") -> Path:
    """Makes the directory with its parents, and makes sure that all hosts can write to it.

    Args:
      token: a word that the hosts of a job have in common.

    Raises:
      UserError: if it is a file, cannot be made or written to, or is not the same on all hosts.
    """
    check_format(model_dir)
    path = storage.writable_path(model_dir, "MODEL_DIR")
    check_no_part_of_a_run(path, "MODEL_DIR")
    if jax.process_count() == 1:
        storage.make_directory(path, "MODEL_DIR")
        return path
    mark = path / f".shared-by-{token}"
    if hosts.is_first():
        storage.make_directory(path, "MODEL_DIR")
        try:
            storage.write_whole(mark, "")
        except RunError as error:
            raise UserError(f"MODEL_DIR={str(model_dir)!r} cannot be used: {error}") from error
    hosts.barrier("in MODEL_DIR")
    storage.make_directory(path, "MODEL_DIR")
    shared = storage.is_file(mark, "MODEL_DIR")
    hosts.barrier("seen in MODEL_DIR")
    if not shared:
        raise UserError(
            f"MODEL_DIR={str(model_dir)!r} is another directory on process {jax.process_index()} "
            "than on process 0: name one on a file system that all hosts share."
        )
    if hosts.is_first():
        storage.remove(mark)
    return path


@contextlib.contextmanager
def locked(model_dir: str | Path) -> Iterator[None]:
    """Within, no other process trains in this directory; the first host holds it for all.

    Raises:
      UserError: another process trains there.
    """
    if not hosts.is_first():
        yield
        return
    what = f"MODEL_DIR={str(model_dir)!r}"
    with storage.exclusive_lock(storage.as_path(model_dir) / ".lock", what, "switchx train"):
        storage.remove_unfinished(model_dir)
        yield


def write_config(model_dir: str | Path, text: str) -> Path:
    """Writes config.gin; another one, of an earlier start, is kept as config.0.gin and so on."""
    path = storage.as_path(model_dir) / "config.gin"
    earlier = storage.read_if_there(path, "MODEL_DIR")
    if earlier is not None and earlier != text.encode():
        there = storage.names_in(model_dir, "MODEL_DIR")
        number = next(n for n in itertools.count() if f"config.{n}.gin" not in there)
        storage.write_whole(path.with_name(f"config.{number}.gin"), earlier)
    storage.write_whole(path, text)
    return path


def write_start(
    model_dir: str | Path,
    setup: Setup,
    config: str,
    record: Mapping[str, Any],
    resets: Resets = NO_RESETS,
) -> None:
    """Writes what is known before the first step: see docs/run_directory.md.

    Args:
      config: gin that gives the run again; "" leaves config.gin as it is.
      record: what the run was started from (see `start.Started`); {} where it goes on.
      resets: what began anew since.
    """
    form = {"format": FORMAT, "switchx": switchx.__version__, **resets.form()}
    storage.write_whole(storage.as_path(model_dir) / FORMAT_FILE, json.dumps(form) + "\n")
    if config:
        write_config(model_dir, config)
    write_model_info(model_dir, setup.model, setup.mesh, setup.run.mesh.fully_sharded)
    if record:
        storage.write_whole(
            storage.as_path(model_dir) / START_FILE,
            json.dumps(record, indent=1) + "\n",
        )


def write_model_info(model_dir: str | Path, model: Model, mesh: Mesh, fully_sharded: bool) -> Path:
    """Writes model_info.txt: each parameter's shape, logical axes, partition, bytes per device."""
    path = storage.as_path(model_dir) / "model_info.txt"
    storage.write_whole(path, model_info(model, mesh, fully_sharded))
    return path


def model_info(model: Model, mesh: Mesh, fully_sharded: bool = False) -> str:
    """The table of `write_model_info`. Allocates nothing, whatever the model's size."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(model, mesh, fully_sharded))
    axes = jax.tree.leaves(model.axes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    rows: list[tuple[Any, ...]] = [("parameter", "shape", "axes", "partition", "bytes per device")]
    total, per_device = 0, 0
    for (path, leaf), names in zip(leaves, axes, strict=True):
        held = bytes_per_device(leaf)
        total, per_device = total + leaf.size, per_device + held
        name = "/".join(str(key.key) for key in path)
        shape = " x ".join(map(str, leaf.shape))
        axes_and_partition = (", ".join(map(_axis, of)) for of in (names, leaf.sharding.spec))
        rows.append((name, shape, *axes_and_partition, held))
    return "\n".join(
        [
            f"mesh: {describe(mesh)}",
            f"parameters: {total:,}",
            f"bytes per device: {per_device:,} (parameters alone, without optimizer state)",
            "",
            *table(rows),
            "",
        ]
    )


def _axis(axis: Any) -> str:
    if axis is None:
        return "-"
    return axis if isinstance(axis, str) else "+".join(axis)
