"""Where each record of an ArrayRecord file lies, so that one is read by its bytes alone.

For files at a URL: array_record opens none (0.8.6 takes gs://bucket/file for an empty file, or
hangs). The format is Riegeli's, riegeli/doc/riegeli_records_file_format.md, as far as
`shard_writer` uses it, each record an uncompressed chunk of its own:

    block  64 KiB, each begins with a header of 24 bytes, wherever that falls
    chunk  hash u64 | bytes of data u64 | its hash u64 | kind u8, records u56 | bytes of records u64
           | data: compression u8, bytes of lengths varint, lengths varint each, the records

The last block holds one chunk, which says where the chunk before it begins, the footer: a record
for each chunk of the file, that says where it begins. Nothing read by this is trusted: each record
has a checksum of ours.
"""

import numpy as np

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 2**16, 24, 40
_SIMPLE, _UNCOMPRESSED = ord("r"), 0
_PLACE = 0x08  # a protocol buffer's first field, a varint
_NOTE_BYTES = 16  # more than the footer takes for a record
_VARINT_BYTES = 10


def tail_bytes(size: int, records: int) -> int:
    """How many bytes at the end of a file surely hold all that says where its records lie."""
    return min(size, 2 * _BLOCK + _CHUNK_HEADER + _NOTE_BYTES * (records + 1))


def begins_of(tail: bytes, size: int, records: int) -> np.ndarray | None:
    """Where each record's chunk begins, and the footer behind them, [records + 1].

    None where the file is no such file, or has another number of records.

    Args:
      tail: the file's last bytes, as many as `tail_bytes` says.
      size: of the file.
    """
    try:
        last = _last_block(tail, size)
        _, pointer = _records_of(tail[last - (size - len(tail)) :], last)
        footer = int(_varints(pointer, np.ones(1, np.int64))[0])
        length_R, notes = _records_of(tail[footer - (size - len(tail)) :], footer)
        # The first note is of the file, each of the others of a chunk.
        start_R = np.cumsum(length_R)[:-1]
        if (np.frombuffer(notes, np.uint8)[start_R] != _PLACE).any():
            return None
        begin_R = np.append(_varints(notes, start_R + 1), footer)
    except (ValueError, IndexError):
        return None
    if len(begin_R) != records + 1 or not (np.diff(begin_R) > 0).all() or begin_R[0] < 0:
        return None
    return begin_R.astype(np.uint32 if size < 2**32 else np.int64)


def record_of(content: bytes, begin: int) -> bytes | None:
    """The record of a chunk from its bytes; None where they are no chunk of one record."""
    try:
        length_R, record = _records_of(content, begin)
    except (ValueError, IndexError):
        return None
    return record if len(length_R) == 1 else None


def _last_block(tail: bytes, size: int) -> int:
    if size % _BLOCK or len(tail) < _BLOCK:
        raise ValueError("the last block is not whole")
    return size - _BLOCK


def _records_of(content: bytes, begin: int) -> tuple[np.ndarray, bytes]:
    """The lengths of a chunk's records, and these one behind the other.

    Args:
      content: from the chunk's first byte on, also more than the chunk.
      begin: where that is in the file.
    """
    header = _without_block_headers(content[: 2 * _CHUNK_HEADER + _BLOCK_HEADER], begin)
    if len(header) < _CHUNK_HEADER or header[24] != _SIMPLE:
        raise ValueError("no chunk of records")
    data_bytes, count, record_bytes = (
        int.from_bytes(header[a:b], "little") for a, b in ((8, 16), (25, 32), (32, 40))
    )
    headers = (_CHUNK_HEADER + data_bytes) // (_BLOCK - _BLOCK_HEADER) + 2
    whole = content[: _CHUNK_HEADER + data_bytes + headers * _BLOCK_HEADER]
    data = _without_block_headers(whole, begin)[_CHUNK_HEADER : _CHUNK_HEADER + data_bytes]
    if len(data) != data_bytes or data[0] != _UNCOMPRESSED or record_bytes > data_bytes:
        raise ValueError("a part of a chunk, or a compressed one")
    lengths = data[1 : data_bytes - record_bytes]
    end_R = np.flatnonzero(np.frombuffer(lengths, np.uint8) < 0x80)  # of each varint
    if len(end_R) != count + 1:
        raise ValueError("lengths")
    length_R = _varints(lengths, end_R[:-1] + 1)
    if length_R.sum() != record_bytes:
        raise ValueError("lengths")
    return length_R, data[data_bytes - record_bytes :]


def _varints(content: bytes, start_R: np.ndarray) -> np.ndarray:
    """The varints, 7 bits a byte and the lowest first, that start at some places, int64 [R]."""
    byte_N = np.frombuffer(content + bytes(_VARINT_BYTES), np.uint8)
    value_R, goes_on_R = np.zeros(len(start_R), np.int64), np.ones(len(start_R), bool)
    for number in range(_VARINT_BYTES - 1):
        byte_R = byte_N[start_R + number].astype(np.int64)
        value_R += np.where(goes_on_R, (byte_R & 0x7F) << (7 * number), 0)
        goes_on_R &= byte_R >= 0x80
        if not goes_on_R.any():
            return value_R
    raise ValueError("a number that does not end")


def _without_block_headers(content: bytes, begin: int) -> bytes:
    parts, at = [], 0
    while at < len(content):
        within = (begin + at) % _BLOCK
        if within < _BLOCK_HEADER:
            at += _BLOCK_HEADER - within
            within = _BLOCK_HEADER
        parts.append(content[at : at + _BLOCK - within])
        at += _BLOCK - within
    return b"".join(parts)
