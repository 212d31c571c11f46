"""What a run is given from outside: its data, and what measures its parameters."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from switchx.model import Params
from switchx.training.batches import HostBatch
from switchx.training.readings import Result, Scores
from switchx.training.state import Setup


class Stream(Protocol):
    """An endless stream of this host's rows that knows its position in each of its shards."""

    def __next__(self) -> HostBatch: ...

    def skip(self, examples: int) -> None: ...

    def state(self) -> dict[int, bytes]: ...

    def restore(self, states: Mapping[int, bytes]) -> None: ...

    def report(self) -> dict[str, int]: ...


class Evaluation(Protocol):
    """Evaluates parameters on the same batches every time, the whole and each task of it.

    Attributes:
      share: what the last call read, in words.
    """

    share: Any

    def __call__(self, params: Params) -> Result: ...

    def scores(
        self,
        params: Params,
        step: int,
        say: Callable[[str], None],
        begin: Callable[[], None],
    ) -> Scores: ...

    def each_task(self, params: Params) -> Iterator[tuple[str, Result]]: ...


def _unknown() -> None:
    """There is nothing to check, and no vocabulary is known."""


def _fits(position: bytes) -> None:
    """Any position fits."""


@dataclasses.dataclass(frozen=True)
class Feed:
    """The data of a run, opened when it is wanted.

    Attributes:
      stream: makes the stream of these shards of the training data.
      evaluation: makes what evaluates parameters, of the run's setup.
      check: called as soon as the run's directory is held; raises UserError where data is missing,
        and returns a name of the vocabulary's content, with which alone a checkpoint may go on,
        or None.
      check_position: raises UserError where a shard's saved position is of other data; takes
        moments.
    """

    stream: Callable[[Sequence[int]], Stream]
    evaluation: Callable[[Setup], Evaluation]
    check: Callable[[], str | None] = _unknown
    check_position: Callable[[bytes], None] = _fits
