"""Examples out of batches again, and the text that was corrupted to make them."""

from collections.abc import Iterator, Mapping

import numpy as np

from switchx.data.batches import targets_of
from switchx.data.tasks.vocabularies import Vocabulary
from switchx.data.taught.records import IDS


def examples_of(batch: Mapping[str, np.ndarray]) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and targets of each example, without padding; several of a row that is packed."""
    inputs_BM, (targets_BL, weight_BL) = batch["encoder_input_tokens"], targets_of(batch)
    input_segment_BM = batch.get("encoder_segment_ids", (inputs_BM > 0).astype(np.int32))
    if "encoder_target_tokens" in batch:  # at the places of the inputs, whatever counts of them
        target_segment_BL = input_segment_BM
    else:
        is_real_BL = weight_BL > 0
        target_segment_BL = batch.get("decoder_segment_ids", is_real_BL.astype(np.int32))
    for row in range(len(targets_BL)):
        for n in range(1, int(target_segment_BL[row].max(initial=0)) + 1):
            inputs = inputs_BM[row][input_segment_BM[row] == n].tolist()
            yield inputs, targets_BL[row][target_segment_BL[row] == n].tolist()


def taught_examples_of(
    batch: Mapping[str, np.ndarray],
) -> Iterator[tuple[list[int], list[int], list[int] | None]]:
    """The same, and at each target what a teacher finds likeliest there; None without its logits.

    Where a target of an encoder alone does not count, it stands itself.
    """
    if IDS not in batch:
        yield from ((*example, None) for example in examples_of(batch))
        return
    target_BL, weight_BL = targets_of(batch)
    stack = "encoder" if "encoder_target_tokens" in batch else "decoder"
    likeliest_BL = np.where(weight_BL > 0, batch[IDS][..., 0], target_BL)
    answered = examples_of({**batch, f"{stack}_target_tokens": likeliest_BL})
    for (inputs, targets), (_, answers) in zip(examples_of(batch), answered, strict=True):
        yield inputs, targets, answers


def filled_in(inputs: list[int], targets: list[int], vocabulary: Vocabulary) -> list[int] | None:
    """The text that was corrupted: each span in the place of its sentinel; None without any."""
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in targets:
        if token == vocabulary.sentinel_id(len(spans)):
            current = spans[token] = []
        elif token != vocabulary.eos_id:
            current.append(token)
    if not spans:
        return None
    whole: list[int] = []
    for token in inputs:
        whole += spans.get(token, [token])
    return whole
