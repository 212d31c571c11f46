"""What a run measured: one JSON line per row, handed on to the run's writers too."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.errors import RunError
from switchx.model import ModelConfig
from switchx.training.run_reader import METRICS_FILE, parse_rows
from switchx.writers import Writers


class MetricWriter:
    """Writes rows of metrics to `model_dir`.

    Args:
      model_dir: metrics.jsonl is written here.
      start_step: the checkpoint from which the run goes on, 0 for a fresh start. What an earlier
        attempt wrote beyond it is dropped, so that the file holds one run's curve.
      writers: get each row once it is in the file.
      say: shows a line.
    """

    def __init__(
        self,
        model_dir: str | Path,
        start_step: int,
        writers: Writers | None = None,
        say: Callable[[str], None] = print,
    ):
        self._path = storage.as_path(model_dir, "MODEL_DIR") / METRICS_FILE
        self._writers, self._say = writers or Writers(), say
        self._file = self._open(start_step)

    def write(
        self,
        step: int,
        split: str,
        scalars: Mapping[str, float],
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Appends one row.

        Args:
          split: "train", "validation" or "validation/" and the name of a task.
          arrays: one row per switch layer: [layers], or [layers, experts] for shares of a whole.

        Raises:
          RunError: it cannot be written.
        """
        arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()}
        row: dict[str, Any] = {name: _plain(value) for name, value in scalars.items()}
        row |= {name: _plain(array.tolist()) for name, array in arrays.items()}
        self._writers.write(self._append(step, split, row))

    def roll_back(self, bad_step: int, to_step: int, skipped: int, loss: float) -> None:
        """Drops the rows after `to_step`, and appends one of split "rollback" that says so.

        It stands at the step that is done again, so that a run resumed from `to_step`, which
        comes to roll back again, does not have it twice.

        Raises:
          RunError: it cannot be written.
        """
        self.close()
        self._file = self._open(to_step, kept_split="rollback")
        row = {"from": bad_step, "to": to_step, "batches_skipped": skipped, "loss": _plain(loss)}
        self._append(to_step + 1, "rollback", row)

    def sync(self) -> None:
        """What was written is there for a run that goes on from a checkpoint saved after this.

        Raises:
          RunError: it cannot be written.
        """
        self._file.sync()
        self._writers.sync()

    def close(self) -> None:
        """Flushes and closes the file. What cannot be written was said before."""
        with contextlib.suppress(RunError):
            self._file.close()

    def _open(self, start_step: int, kept_split: str | None = None) -> storage.Appender:
        kept: list[dict[str, Any]] = []

        def keep(content: bytes) -> bytes:
            kept[:] = _up_to(start_step, kept_split, parse_rows(content, self._path))
            return "".join(json.dumps(row) + "\n" for row in kept).encode()

        file = storage.open_appender(self._path, keep)
        measured = [row for row in kept if row["split"] != "rollback"]
        self._writers.begin(start_step, measured, self._say)
        return file

    def _append(self, step: int, split: str, values: Mapping[str, Any]) -> dict[str, Any]:
        row = {"step": int(step), "split": split, "time": round(time.time(), 3), **values}
        self._file.append((json.dumps(row, allow_nan=False) + "\n").encode())
        self._file.flush()
        return row


class NoWriter:
    """Of the hosts that write nothing, since the first one does."""

    def write(self, *row: Any) -> None: ...

    def roll_back(self, *row: Any) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


def layer_names(config: ModelConfig) -> list[str]:
    """What has experts, in the order in which statistics come, e.g. "encoder 1", "decoder 3".

    With experts in attention the part is named too: "encoder 1 attention".
    """
    if config.switch is None:
        return []
    parts = {"feed_forward": [""], "attention": [" attention"]}
    parts["both"] = [" attention", " feed-forward"]
    return [
        f"{stack} {layer}{part}"
        for stack, shape in config.stacks.items()
        for layer in shape.sparse_layers
        for part in parts[config.switch.experts_in]
    ]


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Turns elapsed time into rates.

    Attributes:
      tokens_per_step: input and target tokens of one batch.
      flops_per_step: the model's, forward and backward (`switchx.training.freezing.step_flops`).
      peak_flops: of all devices together, per second; None where it is not known.
    """

    tokens_per_step: int
    flops_per_step: float
    peak_flops: float | None = None

    def over(self, steps: int, seconds: float) -> dict[str, float]:
        """Rates of `steps` steps that took `seconds`; `utilisation` only with a known peak."""
        speed = steps / max(seconds, 1e-9)
        rates = {
            "steps_per_second": speed,
            "tokens_per_second": speed * self.tokens_per_step,
            "model_flops_per_second": speed * self.flops_per_step,
        }
        if self.peak_flops:
            rates["utilisation"] = rates["model_flops_per_second"] / self.peak_flops
        return rates


def _up_to(
    start_step: int, kept_split: str | None, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows that stay: none after `start_step` but those of `kept_split`."""
    # Nothing that stands before the first step of a fresh start is part of it.
    return [
        row
        for row in rows
        if (start_step and row["step"] <= start_step) or row["split"] == kept_split
    ]


def _plain(value: Any) -> Any:
    """What any JSON reader reads: eight digits, as float32 has no more; None if not finite."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = float(value)
    return float(f"{value:.8g}") if math.isfinite(value) else None
