"""What a writer is, and what it is told of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from switchx.errors import UserError

# A line of metrics.jsonl: "step", "split", "time", scalars, and lists with an entry for each layer
# of experts; None where a figure was not finite. See docs/run_directory.md.
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What is known of a run before its first step.

    Attributes:
      model_dir: the run's directory, a path or a URL.
      configuration: gin that gives the run again.
      hyperparameters: each setting by its name.
      layer_names: of the layers of experts, in the order of a row's lists.
      folder: where on this machine a writer may keep files of its own.
      name: of the run, for people.
      id: of the run, the same after a resume and unlike any other run's; "" where none needs it.
    """

    model_dir: str = ""
    configuration: str = ""
    hyperparameters: Mapping[str, bool | int | float | str] = dataclasses.field(
        default_factory=dict
    )
    layer_names: Sequence[str] = ()
    folder: str = ""
    name: str = ""
    id: str = ""


class Writer(Protocol):
    """Takes what a run measures. What it raises switches it off, and the run goes on.

    Its methods are called one after the other, in a thread of its own.
    """

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        """The run goes on behind this step: nothing that was written of later ones counts.

        Called before all else, and again after a rollback.

        Args:
          rows: all up to `step`, for a writer that cannot forget and starts over.
        """

    def write(self, row: Row) -> None:
        """A row of metrics. Those of a split come in the order of their steps."""

    def text(self, step: int, name: str, text: str) -> None:
        """Lines for people, such as blanks that the model filled."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """A picture, as a PNG file's content."""

    def close(self, status: str) -> None:
        """Nothing comes any more.

        Args:
          status: "finished", "stopped" by a signal, or "failed".
        """


_METHODS = ("begin", "write", "text", "picture", "close")


def check_writer(given: Any) -> None:
    """Raises UserError for what is no writer, such as a tracker's name."""
    for method in _METHODS:
        if not callable(getattr(given, method, None)):
            raise UserError(
                f"writers holds {given!r}, which has no {method}(): give objects with "
                f"{', '.join(_METHODS)}; trackers are named by METRIC_WRITERS."
            )
