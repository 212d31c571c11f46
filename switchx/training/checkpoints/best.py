"""The best checkpoint of a run, by its validation loss or by a score of its tasks."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers

from switchx import hosts
from switchx.training.readings import LOSS, as_fields
from switchx.training.run_reader import metric_rows


@dataclasses.dataclass
class Best(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoint of the lowest loss or of the highest score, the earlier of equals.

    Attributes:
      name: what it is told by, as BEST_SCORE has it.
      found: its value at each step that was evaluated.
    """

    name: str
    found: dict[int, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_run(cls, model_dir: str | Path, name: str) -> "Best":
        """As far as a run has come: checkpoints of earlier processes count too.

        What the first host reads holds for all.
        """
        here = _of_rows(metric_rows(model_dir), name) if hosts.is_first() else {}
        told = json.loads(hosts.announced(json.dumps(here)))
        return cls(name, {int(step): value for step, value in told.items()})

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """What an evaluation of a step found, {} where there was none."""
        self.found.pop(step, None)
        if self.name in values:
            self.found[step] = values[self.name]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        sign = -1 if self.name == LOSS else 1
        ranks = {
            info.step: (sign * self.found[info.step], -info.step)
            for info in checkpoints
            if info.step in self.found
        }
        best = max(ranks, key=ranks.__getitem__, default=None)
        return [info.step == best for info in checkpoints]


def _of_rows(rows: Iterable[Mapping[str, Any]], name: str) -> dict[int, float]:
    task, _, metric = name.rpartition("/")
    split = f"validation/{task}" if task else "validation"
    field = LOSS if name == LOSS else next(iter(as_fields({metric: 0.0})))
    return {
        row["step"]: row[field]
        for row in rows
        if row["split"] == split and row.get(field) is not None
    }
