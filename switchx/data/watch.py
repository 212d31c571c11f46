"""Waits for data with a limit: a reader that hangs must not let a run wait for ever."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from switchx.data.config import Batch, DataConfig
from switchx.data.retries import in_time
from switchx.errors import RunError

T = TypeVar("T")


class Stream(Protocol):
    """An endless stream of batches that knows its position in each of its shards."""

    def __next__(self) -> Batch: ...

    def state(self) -> dict[int, bytes]: ...

    def restore(self, states: Mapping[int, bytes]) -> None: ...

    def report(self) -> dict[str, int]: ...

    def close(self) -> None: ...


class Watched:
    """A stream whose every batch comes within config.timeout seconds, or the run ends."""

    def __init__(self, stream: Stream, config: DataConfig) -> None:
        self._stream, self._config = stream, config

    def __iter__(self) -> "Watched":
        return self

    def __next__(self) -> Batch:
        """Returns the next batch; RunError where none comes in time."""
        return _in_time(lambda: next(self._stream), self._config)

    def state(self) -> dict[int, bytes]:
        """As the stream's own."""
        return self._stream.state()

    def restore(self, states: Mapping[int, bytes]) -> None:
        """As the stream's own."""
        self._stream.restore(states)

    def report(self) -> dict[str, int]:
        """As the stream's own."""
        return self._stream.report()

    def close(self) -> None:
        """As the stream's own."""
        self._stream.close()


def watched(batches: Iterator[Batch], config: DataConfig) -> Iterator[Batch]:
    """The same batches, each within config.timeout seconds; RunError where one is not."""
    while (batch := _in_time(lambda: next(batches, None), config)) is not None:
        yield batch


def _in_time(read: Callable[[], T], config: DataConfig) -> T:
    try:
        return in_time(read, config.timeout)
    except TimeoutError:
        raise RunError(
            f"No batch of {config.mixture_or_task_name!r} came within "
            f"DATA_TIMEOUT={config.timeout:g} seconds: its files do not answer. The last "
            "checkpoint is whole: run the same command to go on."
        ) from None
