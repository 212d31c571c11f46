"""What a file holds is told by its content, in any compression; what is not read is named."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import zstandard

from switchx.data.files import formats, open_records
from switchx.errors import UserError

TEXTS = [f"text {n} of é \u2028 \U0001f600 " * 9 for n in range(300)]
ROWS = [{"text": text, "id": n} for n, text in enumerate(TEXTS)]
COMPRESS = {
    "": lambda content: content,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def parquet(rows):
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), made, row_group_size=100)
    return made.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FORMATS = {
    "text": "\n".join(TEXTS).encode(),
    "JSON lines": LINES,
    "a JSON array": json.dumps(ROWS, indent=1, ensure_ascii=False).encode(),
    "Parquet": parquet(ROWS),
}


def read(path):
    file = open_records(str(path), "X")
    return [file.values(record) for record in file.read() if not record.is_blank]


def read_bytes(tmp_path, content, name="x"):
    (tmp_path / name).write_bytes(content)
    return read(tmp_path / name)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_in_each_compression(kind, compression, tmp_path):
    path = tmp_path / "x.gz"  # the name says nothing
    path.write_bytes(COMPRESS[compression](FORMATS[kind]))
    file = open_records(str(path), "X")
    assert (file.format.name, file.compression) == (kind, compression)
    assert file.count() == len(ROWS)
    assert read(path) == ([{"text": text} for text in TEXTS] if kind == "text" else ROWS)


@pytest.mark.parametrize("compression", [name for name in COMPRESS if name])
def test_joined_and_damaged_compression(compression, tmp_path):
    compress = COMPRESS[compression]
    one, two = compress(LINES[: len(LINES) // 2]), compress(LINES[len(LINES) // 2 :])
    assert read_bytes(tmp_path, one + two) == ROWS
    assert read_bytes(tmp_path, compress(b"")) == []
    assert read_bytes(tmp_path, b"") == []
    for damaged, why in (
        (one + two[:-5], "it ends too early"),
        (one[:40], "it ends too early"),
        (one[:60] + bytes(20) + one[80:] + two, ""),
        (one + b"something else", ""),
    ):
        sentence = rf"X leads to '.*/x', whose compression by {compression} is damaged \({why}"
        with pytest.raises(UserError, match=sentence):
            read_bytes(tmp_path, damaged)


def test_what_block_tools_add(tmp_path):
    """Zeros behind gzip and xz; frames to skip around Zstandard's, and its largest windows."""
    for compression in ("gzip", "xz"):
        assert read_bytes(tmp_path, COMPRESS[compression](LINES) + bytes(512)) == ROWS
    skipped = struct.pack("<II", 0x184D2A55, 3) + b"abc"
    assert read_bytes(tmp_path, skipped + COMPRESS["zstd"](LINES) + skipped) == ROWS
    window = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    made = zstandard.ZstdCompressor(compression_params=window).compressobj()
    assert read_bytes(tmp_path, made.compress(LINES) + made.flush()) == ROWS


def tar(content):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("t.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zipped(content):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("t.json", content)
    return made.getvalue()


def arrow(opened):
    made = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with opened(made, table.schema) as writer:
        writer.write_table(table)
    return made.getvalue()


def tfrecord(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"one")
    return path.read_bytes()


def array_record(path):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    writer.write(b"one")
    writer.close()
    return path.read_bytes()


def saved(array):
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


OTHERS = {
    "a ZIP archive: unpack it": zipped(LINES),
    "a tar archive: unpack it": tar(LINES),
    "compressed by gzip within another compression": gzip.compress(LINES),
    "an Arrow file: give it as Parquet": arrow(pa.ipc.new_file),
    "an Arrow stream: give it as Parquet": arrow(pa.ipc.new_stream),
    "UTF-16 text: give it as UTF-8": LINES.decode().encode("utf-16"),
    "UTF-32 text: give it as UTF-8": LINES.decode().encode("utf-32"),
    "a Git LFS pointer: fetch": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "HTML: give its texts": b"\n<!doctype HTML>\n<title>404</title>",
    "XML: give its texts": b'<?xml version="1.0"?>\n<a/>',
    "a PDF: give its texts": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "RTF: give its texts": b"{\\rtf1\\ansi a}",
    "a NumPy array: give its texts": saved(np.arange(9)),
    "a Python pickle, which could run anything": pickle.dumps(ROWS),
    r"binary data of no known kind \(it begins with b'\\x01": bytes(range(1, 256)) * 9,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_read_is_named(kind, tmp_path):
    """Plain and within a compression."""
    with pytest.raises(UserError, match=rf"^X leads to '.*/x', which is {kind}"):
        read_bytes(tmp_path, OTHERS[kind]) if not kind.startswith("compressed") else read_bytes(
            tmp_path, gzip.compress(OTHERS[kind])
        )
    with pytest.raises(UserError, match=rf"^X leads to '.*/x', which is {kind}"):
        read_bytes(tmp_path, bz2.compress(OTHERS[kind]))


def test_records_of_other_tools_are_named(tmp_path):
    for made, kind in ((tfrecord, "a TFRecord"), (array_record, "an ArrayRecord")):
        content = made(tmp_path / "made")
        with pytest.raises(UserError, match=rf"^X leads to '.*/x', which is {kind}: "):
            read_bytes(tmp_path, content)
    for name, end in (("csv", ""), ("tsv", ".gz")):
        match = rf"x.{name}{end}', which is {name.upper()}: give its rows"
        with pytest.raises(UserError, match=match):
            read_bytes(tmp_path, b"a,b\n1,2\n", f"x.{name}{end}")


def test_json_by_its_name_alone(tmp_path):
    """Of a file that was cut at some byte, say: its lines would be trained on as text."""
    for name in ("x.jsonl", "x.JSON.zst"):
        with pytest.raises(UserError, match=r"is neither JSON lines nor an array .* b'ext\": "):
            read_bytes(tmp_path, LINES[3:], name)
        assert read_bytes(tmp_path, LINES, name) == ROWS
        assert read_bytes(tmp_path, b"", name) == []


def test_lines_of_cr_alone(tmp_path):
    for kind in ("text", "JSON lines"):
        with pytest.raises(UserError, match=r"x', which is lines that end in CR alone: end them"):
            read_bytes(tmp_path, FORMATS[kind].replace(b"\n", b"\r"))
    array = FORMATS["a JSON array"].replace(b"\n", b"\r")
    assert read_bytes(tmp_path, array) == ROWS
    long = b"a" * (formats.HEAD - 1) + b"\r\nb\r\n"
    assert read_bytes(tmp_path, long) == [{"text": "a" * (formats.HEAD - 1)}, {"text": "b"}]


def test_text_that_looks_like_something_else(tmp_path):
    for line in ("ORC is short for", "BZh is no word", "PK zip", "[Music] and", "[[link]]", "Rar!"):
        assert read_bytes(tmp_path, f"{line}\nmore".encode())[0] == {"text": line}
    strays = "a page with \0 and \x02 in it " * 9 + "a" * 2000
    assert read_bytes(tmp_path, strays.encode()) == [{"text": strays}]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \t\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_line_ends_empty_lines_and_a_byte_order_mark(tmp_path, begin, end):
    for lines in ([b'{"text": "one"}', b'{"text": "two"}'], [b"one", b"two"]):
        content = begin + end.join(lines) + end
        assert read_bytes(tmp_path, content) == [{"text": "one"}, {"text": "two"}]
    array = begin + end.join([b"[", b'{"text":"one"}', b",", b'{"text":"two"}', b"]"]) + end
    assert read_bytes(tmp_path, array) == [{"text": "one"}, {"text": "two"}]


def test_text_that_is_not_utf8_is_broken_line_by_line(tmp_path):
    assert read_bytes(tmp_path, "one\ncaf\xe9\ntwo".encode("latin-1")) == [
        {"text": "one"},
        None,
        {"text": "two"},
    ]


def test_parquet_of_bytes_is_text(tmp_path):
    assert read_bytes(tmp_path, parquet([{"text": "é".encode()}])) == [{"text": "é"}]
    assert read_bytes(tmp_path, parquet([{"text": b"\xff"}])) == [{"text": b"\xff"}]
    with pytest.raises(UserError, match=r"a Parquet file that cannot be read \(.*: give a whole"):
        read_bytes(tmp_path, gzip.compress(FORMATS["Parquet"][:-9]))
