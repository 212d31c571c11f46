"""One record of a prepared set as bytes: arrays of token ids, and a checksum over them.

    crc32 uint32 | number of arrays uint32 | length of each, uint32 | the arrays, one type for all

All little-endian. The checksum begins with a number of the shard's own, its salt: files of other
text and the same settings have the same size, and their records must not pass for this shard's.
Nothing else tells them apart where records are read at any place and files never whole.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

TOKEN_TYPES = ("<u2", "<u4")
_WORD = 4


def token_type(vocab_size: int) -> str:
    """The smallest type that holds every id of a vocabulary."""
    return TOKEN_TYPES[0] if vocab_size <= 2**16 else TOKEN_TYPES[1]


def encode(arrays: Sequence[np.ndarray], dtype: str, salt: int) -> bytes:
    """Returns the record of these arrays; `salt` is the shard's."""
    lengths = [len(array) for array in arrays]
    header = struct.pack(f"<{1 + len(arrays)}I", len(arrays), *lengths)
    body = header + b"".join(np.asarray(array).astype(dtype).tobytes() for array in arrays)
    return struct.pack("<I", zlib.crc32(body, salt)) + body


def decode(record: bytes, dtype: str, salt: int) -> list[np.ndarray] | None:
    """Returns the arrays as int32, or None where the bytes are no record of this shard."""
    if len(record) < 2 * _WORD or zlib.crc32(record[_WORD:], salt) != _word(record, 0):
        return None
    count = _word(record, 1)
    start = (2 + count) * _WORD
    if len(record) < start:
        return None
    lengths = struct.unpack_from(f"<{count}I", record, 2 * _WORD)
    if start + sum(lengths) * np.dtype(dtype).itemsize != len(record):
        return None
    tokens = np.frombuffer(record, dtype, offset=start).astype(np.int32)
    if count == 1:
        return [tokens]
    return np.split(tokens, np.cumsum(lengths))[:-1]


def salt_of(first: Sequence[np.ndarray], dtype: str) -> int:
    """The salt of the shard whose first record has these arrays."""
    return zlib.crc32(encode(first, dtype, 0))


def _word(record: bytes, number: int) -> int:
    return int(struct.unpack_from("<I", record, number * _WORD)[0])
