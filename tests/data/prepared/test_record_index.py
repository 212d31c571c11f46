"""Records read by their bytes, against array_record's own reader."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from switchx.data.prepared import record_index
from switchx.data.prepared.shard_writer import WRITER_OPTIONS
from switchx.data.prepared.shards import open_records, read_records

SHAPES = {  # lengths from, to, and how many
    "rows": (1148, 1149, 3000),
    "as they come": (0, 3000, 500),
    "a few": (0, 3000, 50),
    "none": (0, 1, 0),
    "larger than blocks": (60_000, 200_000, 20),
    "about as large as a block": (65_300, 65_540, 40),
    "an index of many blocks": (1, 3, 30_000),
}


def written(path, shape):
    low, high, count = SHAPES[shape]
    random = np.random.default_rng(0)
    records = [random.bytes(int(random.integers(low, high))) for _ in range(count)]
    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for record in records:
        writer.write(record)
    writer.close()
    return records, path.read_bytes()


def read(content, count):
    """All records; None for those that cannot be read, or for a file of which none can."""
    tail = content[len(content) - record_index.tail_bytes(len(content), count) :]
    begins = record_index.begins_of(tail, len(content), count)
    if begins is None:
        return None
    ends = zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True)
    return [record_index.record_of(content[begin:end], begin) for begin, end in ends]


@pytest.mark.parametrize("shape", SHAPES)
def test_as_array_record_reads_them(tmp_path, shape):
    records, content = written(tmp_path / "file", shape)
    assert read(content, len(records)) == records
    reader = open_records(tmp_path / "file")
    assert read_records(reader, list(range(len(records)))) == records
    assert read(content, len(records) + 1) is None


def test_no_damage_raises(tmp_path):
    """What comes out is judged by the records' own checksums; it has to come out."""
    records, content = written(tmp_path / "file", "a few")
    random = np.random.default_rng(1)
    used = np.flatnonzero(np.frombuffer(content, np.uint8))
    pointers = used[used >= len(content) - 2**16]  # of the last block
    footer = used[(used < pointers[0]) & (used > pointers[0] - 2**16)]
    for places in (used, pointers, footer):
        for place in random.choice(places, 100):
            changed = bytearray(content)
            changed[place] = int(random.integers(256))
            found = read(bytes(changed), len(records))
            assert found is None or len(found) == len(records)
    for size in random.integers(0, len(content), 50):
        assert read(content[:size], len(records)) is None
    for begin in random.integers(0, len(content), 200):
        record_index.record_of(content[begin : begin + 5000], int(begin))
