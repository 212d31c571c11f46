"""The run directory: made or refused before anything is computed, and what is written at start."""

import contextlib
import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
from jax.sharding import Mesh

from switchx import hosts
from switchx.errors import RunError, UserError
from switchx.model import Model
from switchx.sharding import describe
from switchx.training.state import abstract_params, bytes_per_device


def prepare(model_dir: str | Path, token: str = "") -> Path:
    """Makes the directory with its parents, and makes sure that all hosts can write to it.

    Args:
      token: a word that the hosts of a job have in common.

    Raises:
      UserError: if it is a file, cannot be made or written to, or is not the same on all hosts.
    """
    path = Path(model_dir)
    mark = path / f".shared-by-{token}"
    if hosts.is_first():
        _make_writable(path)
        mark.touch()
    hosts.barrier("in MODEL_DIR")
    _make_writable(path)
    shared = mark.exists()
    hosts.barrier("seen in MODEL_DIR")
    if not shared:
        raise UserError(
            f"MODEL_DIR={str(model_dir)!r} is another directory on process {jax.process_index()} "
            "than on process 0: name one on a file system that all hosts share."
        )
    if hosts.is_first():
        mark.unlink()
    return path


def _make_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"MODEL_DIR={str(path)!r} is a file or lies below one: name a directory."
        ) from None
    except OSError as error:
        raise UserError(
            f"MODEL_DIR={str(path)!r} cannot be written to ({error.strerror}): "
            "name a directory in which you may create files."
        ) from None


_LOCK = ".lock"
_locked: set[Path] = set()


@contextlib.contextmanager
def locked(model_dir: str | Path) -> Iterator[None]:
    """Within, no other process trains in this directory; the first host holds it for all.

    Within itself it does nothing more. However the process ends, the lock ends with it.

    Raises:
      UserError: another process trains there.
    """
    path = Path(model_dir).resolve() / _LOCK
    if not hosts.is_first() or path in _locked:
        yield
        return
    with writing(path), path.open("a+", encoding="utf-8") as file:
        _lock(file, model_dir)
        _locked.add(path)
        try:
            yield
        finally:
            _locked.remove(path)


def _lock(file: TextIO, model_dir: str | Path) -> None:
    """A lock of the process and not of the file: data workers forked from it do not keep it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"MODEL_DIR={str(model_dir)!r} is in use by another switchx train, process "
            f"{file.read().strip() or 'unknown'}: wait for its end, or choose another MODEL_DIR."
        ) from None
    except OSError as error:
        print(
            f"switchx: MODEL_DIR={str(model_dir)!r} is on a file system without locks "
            f"({error.strerror}): make sure that no other process trains there.",
            file=sys.stderr,
        )
        return
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}\n")
    file.flush()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses to write into one sentence.

    Raises:
      RunError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}).") from error


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all, whenever the process is killed.

    Raises:
      RunError: it cannot be written.
    """
    with writing(path):
        _write_atomically(path, text)


def _write_atomically(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read; these are to be shared.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_config(model_dir: str | Path, text: str) -> Path:
    """Writes config.gin; another one, of an earlier start, is kept as config.0.gin and so on."""
    path = Path(model_dir) / "config.gin"
    earlier = path.read_text(encoding="utf-8") if path.exists() else text
    if earlier != text:
        number = 0
        while (kept := path.with_name(f"config.{number}.gin")).exists():
            number += 1
        write_atomically(kept, earlier)
    write_atomically(path, text)
    return path


def write_model_info(
    model_dir: str | Path, model: Model, mesh: Mesh, fully_sharded: bool = False
) -> Path:
    """Writes model_info.txt: each parameter's shape, logical axes, partition, bytes per device."""
    path = Path(model_dir) / "model_info.txt"
    write_atomically(path, model_info(model, mesh, fully_sharded))
    return path


def model_info(model: Model, mesh: Mesh, fully_sharded: bool = False) -> str:
    """The table of `write_model_info`. Allocates nothing, whatever the model's size."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(model, mesh, fully_sharded))
    axes = jax.tree.leaves(model.axes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    rows: list[tuple[str, ...]] = [("parameter", "shape", "axes", "partition", "bytes per device")]
    total, per_device = 0, 0
    for (path, leaf), names in zip(leaves, axes, strict=True):
        held = bytes_per_device(leaf)
        total, per_device = total + leaf.size, per_device + held
        name = "/".join(str(key.key) for key in path)
        shape = " x ".join(map(str, leaf.shape))
        axes_and_partition = (", ".join(map(_axis, of)) for of in (names, leaf.sharding.spec))
        rows.append((name, shape, *axes_and_partition, f"{held:,}"))
    return "\n".join(
        [
            f"mesh: {describe(mesh)}",
            f"parameters: {total:,}",
            f"bytes per device: {per_device:,} (parameters alone, without optimizer state)",
            "",
            *_table(rows),
            "",
        ]
    )


def _axis(axis: Any) -> str:
    if axis is None:
        return "-"
    return axis if isinstance(axis, str) else "+".join(axis)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns wide enough for their longest cell; the last one flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = row[-1].rjust(widths[-1])
        lines.append("  ".join(cells))
    return lines
