"""From records to the rows of a batch: corruption, ends of sequence, padding, segments."""

from collections.abc import Mapping, Sequence

import numpy as np

from switchx.data.batches import Batch
from switchx.data.prepared.reader import Record
from switchx.data.prepared.set_plan import SetPlan


def empty_batch(lengths: Mapping[str, int], rows: int, pack: bool) -> Batch:
    """Rows of padding, whose loss weights are zero."""
    inputs, targets = (rows, lengths["inputs"]), (rows, lengths["targets"])
    batch = {
        "encoder_input_tokens": np.zeros(inputs, np.int32),
        "decoder_input_tokens": np.zeros(targets, np.int32),
        "decoder_target_tokens": np.zeros(targets, np.int32),
        "decoder_loss_weights": np.zeros(targets, np.float32),
    }
    if pack:
        batch["encoder_segment_ids"] = np.zeros(inputs, np.int32)
        batch["decoder_segment_ids"] = np.zeros(targets, np.int32)
    return batch


def fill(
    batch: Batch,
    rows: np.ndarray,
    plan: SetPlan,
    records: Sequence[Record | None],
    key_R: np.ndarray,
) -> None:
    """Writes the examples of some records into some rows; a broken record's row stays empty.

    Args:
      rows: which rows of the batch, one for each record.
      key_R: uint64, of the records' corruption.
    """
    if plan.cut is None:
        for row, record in zip(rows, records, strict=True):
            _put_examples(batch, row, record or [])
        return
    tokens_of = [np.zeros(0, np.int32) if record is None else record[0] for record in records]
    length_R = np.array(list(map(len, tokens_of)))
    for length in np.unique(length_R[length_R > 0]):
        own = np.flatnonzero(length_R == length)
        token_RN = np.stack([tokens_of[i] for i in own])
        inputs_RI, targets_RT = plan.corruption.corrupt(token_RN, key_R[own])
        inputs_RI = after_mode(inputs_RI, plan.mode or ())
        put_rows(batch, rows[own], _ended(inputs_RI, plan, 0), _ended(targets_RT, plan, 1))


def _ended(token_RN: np.ndarray, plan: SetPlan, feature: int) -> np.ndarray:
    if not plan.add_eos[feature]:
        return token_RN
    return np.pad(token_RN, ((0, 0), (0, 1)), constant_values=plan.eos_id)


def after_mode(inputs_RI: np.ndarray, mode: Sequence[int]) -> np.ndarray:
    """The inputs [R, I] of some rows behind the same tokens each: [R, len(mode) + I]."""
    mode_RI = np.broadcast_to(np.array(mode, inputs_RI.dtype), (len(inputs_RI), len(mode)))
    return np.concatenate([mode_RI, inputs_RI], axis=1)


def put_rows(
    batch: Batch, rows: np.ndarray | slice, inputs_RI: np.ndarray, targets_RT: np.ndarray
) -> None:
    """Writes examples of one length each into some rows: inputs [R, I], targets [R, T]."""
    I, T = inputs_RI.shape[1], targets_RT.shape[1]
    batch["encoder_input_tokens"][rows, :I] = inputs_RI
    batch["decoder_target_tokens"][rows, :T] = targets_RT
    batch["decoder_input_tokens"][rows, 1:T] = targets_RT[:, :-1]
    batch["decoder_loss_weights"][rows, :T] = 1
    if "encoder_segment_ids" in batch:
        batch["encoder_segment_ids"][rows, :I] = 1
        batch["decoder_segment_ids"][rows, :T] = 1


def _put_examples(batch: Batch, row: int, record: Record) -> None:
    at_input = at_target = 0
    for number in range(0, len(record), 2):
        inputs, targets = record[number : number + 2]
        into = slice(at_input, at_input + len(inputs))
        onto = slice(at_target, at_target + len(targets))
        batch["encoder_input_tokens"][row, into] = inputs
        batch["decoder_target_tokens"][row, onto] = targets
        batch["decoder_input_tokens"][row, onto] = np.concatenate([[0], targets[:-1]])
        batch["decoder_loss_weights"][row, onto] = 1
        if "encoder_segment_ids" in batch:
            batch["encoder_segment_ids"][row, into] = number // 2 + 1
            batch["decoder_segment_ids"][row, onto] = number // 2 + 1
        at_input, at_target = into.stop, onto.stop
