"""What a teacher finds of one example, as bytes and as a part of a batch.

    crc32 uint32 | the example's mark uint32 | positions uint32 | ids | logits float32

All little-endian; of each position that counts the ids of the K likeliest tokens, of the
vocabulary's type, and their logits, behind which is that of all others as one class where there are
others. The checksum begins with a number of the set of logits, so that none of another pass.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from switchx.data.batches import Batch, targets_of
from switchx.data.prepared.records import token_type

IDS, LOGITS = "teacher_ids", "teacher_logits"
_HEAD = struct.Struct("<III")
_CHECKSUM = 4  # bytes


class Taught(NamedTuple):
    """Of one example: its mark, int[n, K] ids and float32 [n, K or K + 1] logits."""

    mark: int
    ids: np.ndarray
    logits: np.ndarray


def arrays_of(top_k: int, vocab_size: int) -> dict[str, tuple[int, str]]:
    """The last dimension and the type of what a batch has for each target.

    Not float16: with all tokens the loss is to be that of a teacher that is there.
    """
    classes = top_k + (top_k < vocab_size)
    return {IDS: (top_k, token_type(vocab_size)), LOGITS: (classes, "<f4")}


def bytes_per_token(top_k: int, vocab_size: int) -> int:
    """Of a target that counts."""
    arrays = arrays_of(top_k, vocab_size).values()
    return sum(size * np.dtype(dtype).itemsize for size, dtype in arrays)


def encode(found: Taught, top_k: int, vocab_size: int, salt: int) -> bytes:
    """Returns the record of an example; `salt` is the set's."""
    (_, ids), (_, logits) = arrays_of(top_k, vocab_size).values()
    content = found.ids.astype(ids).tobytes() + found.logits.astype(logits).tobytes()
    body = _HEAD.pack(0, found.mark, len(found.ids))[_CHECKSUM:] + content
    return struct.pack("<I", zlib.crc32(body, salt)) + body


def decode(record: bytes | None, top_k: int, vocab_size: int, salt: int) -> Taught | None:
    """Returns what a record holds; None where it is none of this set."""
    if record is None or len(record) < _HEAD.size:
        return None
    checksum, mark, positions = _HEAD.unpack_from(record)
    if zlib.crc32(record[_CHECKSUM:], salt) != checksum:
        return None
    if len(record) != _HEAD.size + positions * bytes_per_token(top_k, vocab_size):
        return None
    (_, id_type), (classes, logit_type) = arrays_of(top_k, vocab_size).values()
    ids = np.frombuffer(record, id_type, positions * top_k, _HEAD.size)
    logits = np.frombuffer(record, logit_type, offset=_HEAD.size + ids.nbytes)
    return Taught(mark, ids.reshape(positions, top_k), logits.reshape(positions, classes))


def marks(batch: Batch) -> list[int]:
    """A number of each row's tokens: logits of another example are not taken for its."""
    input_BM, target_BL = batch["encoder_input_tokens"], targets_of(batch)[0]
    return [
        zlib.crc32(targets.astype("<i4").tobytes(), zlib.crc32(inputs.astype("<i4").tobytes()))
        for inputs, targets in zip(input_BM, target_BL, strict=True)
    ]


def taken_apart(batch: Batch) -> list[Taught]:
    """Of a batch with its logits what is kept of each row: that of the targets that count."""
    counts_BL = targets_of(batch)[1] > 0
    rows = zip(marks(batch), batch[IDS], batch[LOGITS], counts_BL, strict=True)
    return [Taught(mark, ids[own], logits[own]) for mark, ids, logits, own in rows]


def put(batch: Batch, rows: Sequence[Taught | None], top_k: int, vocab_size: int) -> list[int]:
    """Adds the logits to a batch, zeros where no target counts.

    Returns:
      The rows whose logits are broken or of another example; those without targets need none.
    """
    counts_BL = targets_of(batch)[1] > 0
    for name, (size, dtype) in arrays_of(top_k, vocab_size).items():
        batch[name] = np.zeros((*counts_BL.shape, size), dtype)
    wrong = []
    for row, (mark, own, found) in enumerate(zip(marks(batch), counts_BL, rows, strict=True)):
        if not own.any():
            continue
        if found is None or found.mark != mark or len(found.ids) != own.sum():
            wrong.append(row)
            continue
        batch[IDS][row, own], batch[LOGITS][row, own] = found.ids, found.logits
    return wrong
