"""Batches, and streams of them: what the readers of data have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from switchx import storage
from switchx.data.config import DataConfig
from switchx.errors import RunError

# encoder_input_tokens int32 [B, L_inputs]; decoder_target_tokens and decoder_input_tokens int32
# [B, L_targets]; decoder_loss_weights float32 [B, L_targets]. With PACK also encoder_segment_ids
# and decoder_segment_ids int32, 1, 2, ... for the examples of a row and 0 for padding; each example
# begins with the start token 0 in decoder_input_tokens. For an encoder alone (masked.py)
# encoder_target_tokens and encoder_loss_weights are in the place of all that is the decoder's.
# With the logits that a teacher wrote (taught/) those of `taught.records.arrays_of` besides.
Batch = dict[str, np.ndarray]
T = TypeVar("T")


class Stream(Protocol):
    """An endless stream of the batches' rows of some shards, that knows its position in each."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch:
        """Returns the next batch's rows.

        Raises:
          UserError: the data proves broken or empty.
          RunError: the batch did not come within DATA_TIMEOUT seconds.
        """
        ...

    def skip(self, examples: int) -> None:
        """Leaves out the next so many examples of all shards together."""
        ...

    def state(self) -> dict[int, bytes]:
        """Returns each shard's position after the batches returned so far, for `restore`."""
        ...

    def restore(self, states: Mapping[int, bytes]) -> None:
        """Goes to a position: the next example is, bit for bit, the one that would have followed.

        That holds for any size of batch, in this stream and in the one the position is of.

        Raises:
          UserError: the position is damaged, or of other data than this stream's.
        """
        ...

    def report(self) -> dict[str, int]:
        """What the user should know about the data read so far, ahead of the batches; or {}."""
        ...

    def close(self) -> None:
        """Stops reading ahead; the stream gives no batch afterwards."""
        ...


def targets_of(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Target tokens and their loss weights, of whichever stack the batch has them for."""
    stack = "decoder" if "decoder_target_tokens" in batch else "encoder"
    return batch[f"{stack}_target_tokens"], batch[f"{stack}_loss_weights"]


def joined(parts: Sequence[Batch]) -> Batch:
    """The rows of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def watched(items: Iterator[T], config: DataConfig) -> Iterator[T]:
    """The same batches or blocks of them, each within config.timeout seconds, as `watch`."""
    while (item := watch(lambda: next(items, None), config)) is not None:
        yield item


def watch(read: Callable[[], T], config: DataConfig) -> T:
    """Returns read(); RunError where it takes longer than config.timeout seconds."""
    try:
        return storage.in_time(read, config.timeout)
    except TimeoutError:
        raise too_late(config) from None


def too_late(config: DataConfig) -> RunError:
    """What is to be said where no batch came in time."""
    return RunError(
        f"No batch of {config.mixture_or_task_name!r} came within "
        f"DATA_TIMEOUT={config.timeout:g} seconds: its files do not answer. The last "
        "checkpoint is whole: run the same command to go on."
    )
