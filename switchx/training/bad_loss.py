"""Which steps' losses are bad: not finite, or far above those before."""

import collections
import dataclasses
import math
from collections.abc import Iterable

from switchx.training.config import TrainerConfig

WINDOW = 100  # steps whose mean a spike is measured from; the first ones have none yet


@dataclasses.dataclass(frozen=True)
class BadLoss:
    """A step whose update must not be kept, and what is wrong, to follow "The loss at step n"."""

    step: int
    loss: float
    why: str


class LossWatch:
    """Looks at the loss of each step in turn.

    Args:
      losses: of the steps before, so that a resumed run judges as an undisturbed one does.
    """

    def __init__(self, config: TrainerConfig, losses: Iterable[float] = ()):
        self._spike = config.loss_spike
        self._losses = collections.deque(losses, maxlen=WINDOW)

    @property
    def losses(self) -> tuple[float, ...]:
        """Of the last good steps, at most WINDOW."""
        return tuple(self._losses)

    def look_at(self, step: int, loss: float, objective: float, norm: float) -> BadLoss | None:
        """What is wrong with a step, by its loss in nats per token and its gradient's norm."""
        if not (math.isfinite(objective) and math.isfinite(norm)):
            return BadLoss(step, loss, f"is not finite (sum {objective}, gradient norm {norm})")
        if self._spike is not None and len(self._losses) == WINDOW:
            mean = sum(self._losses) / WINDOW
            if loss > mean + self._spike:
                why = f"is {loss:.4f}, and {mean:.4f} in the mean of the {WINDOW} steps before it"
                return BadLoss(step, loss, f"{why} (LOSS_SPIKE={self._spike})")
        self._losses.append(loss)
        return None
