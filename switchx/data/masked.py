"""What an encoder alone is fed: a target at each place of its inputs, which counts where masked.

The features of `seqio.EncoderFeatureConverter`, made of those that every reader of data gives, so
that streamed and prepared data, packed or not, are read as they are. The mask is the vocabulary's
first sentinel.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from switchx.data.batches import Batch, Stream
from switchx.data.config import ENCODER_ALONE, DataConfig
from switchx.errors import UserError


def masked(batch: Batch, mask_id: int, config: DataConfig) -> Batch:
    """The batch with "encoder_target_tokens" and "encoder_loss_weights" for all of the decoder's.

    Raises:
      UserError: its targets do not stand at the places of its inputs.
    """
    input_BL, target_BL = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    segments = {name: x for name, x in batch.items() if name == "encoder_segment_ids"}
    same = np.array_equal(input_BL > 0, target_BL > 0)
    if segments:
        same = same and np.array_equal(batch["encoder_segment_ids"], batch["decoder_segment_ids"])
    if not same:
        raise refusal(config.mixture_or_task_name)
    is_masked_BL = input_BL == mask_id
    return {
        "encoder_input_tokens": input_BL,
        "encoder_target_tokens": target_BL,
        "encoder_loss_weights": is_masked_BL.astype(np.float32),
        **segments,
    }


def refusal(task: str) -> UserError:
    """What to do about a task that is not for an encoder alone."""
    return UserError(
        f"MIXTURE_OR_TASK_NAME={task!r} writes targets of their own, and {ENCODER_ALONE} has them "
        "at the places of its inputs: name a task that masks tokens, such as "
        "'python_docs_masked_lm', or give the model a decoder."
    )


def converter(config: DataConfig, mask_id: int) -> Callable[[Batch], Batch]:
    """What makes of a config's batches those of an encoder alone."""
    return lambda batch: masked(batch, mask_id, config)


class MaskedStream:
    """A stream of the same rows for an encoder alone (`switchx.data.batches.Stream`)."""

    def __init__(self, stream: Stream, convert: Callable[[Batch], Batch]):
        self._stream, self._convert = stream, convert

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self._convert(next(self._stream))

    def skip(self, examples: int) -> None:
        self._stream.skip(examples)

    def state(self) -> dict[int, bytes]:
        return self._stream.state()

    def restore(self, states: Mapping[int, bytes]) -> None:
        self._stream.restore(states)

    def report(self) -> dict[str, int]:
        return self._stream.report()

    def close(self) -> None:
        self._stream.close()
