"""Waits for data with a limit: a reader that hangs must not let a run wait for ever."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from switchx import storage
from switchx.data.config import Batch, DataConfig
from switchx.errors import RunError

T = TypeVar("T")


class Stream(Protocol):
    """An endless stream of batches that knows its position in each of its shards."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def state(self) -> dict[int, bytes]: ...

    def restore(self, states: Mapping[int, bytes]) -> None: ...

    def report(self) -> dict[str, int]: ...

    def close(self) -> None: ...


def watched(items: Iterator[T], config: DataConfig) -> Iterator[T]:
    """The same batches or blocks of them, each within config.timeout seconds, as `watch`."""
    while (item := watch(lambda: next(items, None), config)) is not None:
        yield item


def watch(read: Callable[[], T], config: DataConfig) -> T:
    """Returns read(); RunError where it takes longer than config.timeout seconds."""
    try:
        return storage.in_time(read, config.timeout)
    except TimeoutError:
        raise RunError(
            f"No batch of {config.mixture_or_task_name!r} came within "
            f"DATA_TIMEOUT={config.timeout:g} seconds: its files do not answer. The last "
            "checkpoint is whole: run the same command to go on."
        ) from None
