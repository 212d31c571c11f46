"""What a gin file says of a sweep: no part of a run. `switchx.sweeps` finds what it means."""

import dataclasses

from switchx.checks import COUNTED, ON_FAILURE, ORDERS, above_zero, at_least, one_of
from switchx.errors import UserError


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A grid of runs, as docs/sweeps.md describes it.

    Attributes:
      axes: what varies: from a macro, a parameter or 'gin_file' to the list of its values. All are
        crossed; NUM_EXPERTS=1 is the dense model of equal FLOPs.
      zipped: groups of axes that go along with each other instead, each a tuple of their names.
      exclude: expressions over settings; a point for which one is true is left out.
      rules: from a macro or parameter to an expression over other settings, its value in each
        point; what is no string is the value itself.
      budget_flops: training FLOPs of a point, from which its TRAIN_STEPS follow; None takes
        TRAIN_STEPS as it is set (macro BUDGET_FLOPS).
      counted: which FLOPs count beside those of layers: 'logits', 'router', both or neither.
      retries: how often a point that failed is tried again.
      on_failure: what a point that has failed for good does to the others: 'go_on' or 'stop'.
      order: which point comes first: the 'longest', by FLOPs, or the first that is 'listed'.
      directory: where the sweep's files lie; None is sweeps/ and the name (macro SWEEP_DIR).
      name: of the sweep; None is the gin file's, without its ending.
    """

    axes: dict | None = None
    zipped: tuple | list = ()
    exclude: tuple | list = ()
    rules: dict | None = None
    budget_flops: float | None = None
    counted: tuple | list = ("logits",)
    retries: int = 2
    on_failure: str = "go_on"
    order: str = "longest"
    directory: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name, values in (self.axes or {}).items():
            if not isinstance(values, list | tuple):
                raise UserError(
                    f"SweepConfig.axes[{name!r}]={values!r} must be a list of the axis's values."
                )
            if not values:
                raise UserError(
                    f"SweepConfig.axes[{name!r}]={values!r} is an empty axis: give it a value, or "
                    "leave it out."
                )
        above_zero("BUDGET_FLOPS", self.budget_flops, or_none=True)
        at_least("SweepConfig.retries", self.retries, 0)
        one_of("SweepConfig.on_failure", self.on_failure, ON_FAILURE)
        one_of("SweepConfig.order", self.order, ORDERS)
        for part in self.counted:
            one_of("SweepConfig.counted", part, COUNTED)
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name):
            raise UserError(
                f"SweepConfig.name={self.name!r} must be a name that a folder can have, without a "
                "slash."
            )
