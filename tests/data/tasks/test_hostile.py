"""Lines that no honest shard has: nothing takes more memory than its bound, or is lost."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile

import pytest

from switchx.data import eval_batches, train_stream, vocabulary
from switchx.data.tasks import json_files, json_texts, lines
from switchx.errors import UserError
from switchx.storage import reading

from ..conftest import docs_config, record, sentences, write_lines


def read(path):
    counter = json_texts.LineCounter(1.0)
    return counter, [text.decode() for text in texts_of(str(path), counter)]


def texts_of(path, counter):
    blocks = json_texts.blocks_of(path, "C4_JSON_TRAIN")
    return [text for block in blocks for text in counter.parse(block, path.encode())]


def read_strictly(path):
    counter = json_texts.LineCounter(0.1)
    texts_of(path, counter)
    counter.finish_pass(path)


@pytest.mark.parametrize(
    ("case", "name", "longest", "sizes", "broken"),
    [
        ("endless_line", "lines.json", 20, [11, 11], 1),
        ("bomb", "lines.json.gz", 20, [11, 11], 1),
        ("one_character", "lines.json", 110, [10**6] * 100 + [11], 0),
    ],
)
def test_memory(case, name, longest, sizes, broken, tmp_path):
    arguments = [case, str(tmp_path / name), str(longest)]
    command = [sys.executable, "-m", "tests.data.tasks.hostile_lines", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert found["sizes"] == sizes
    assert (found["lines"], found["broken"]) == (2 + broken, broken)
    # A line as it came, in one piece, as text, and as the texts that are passed on.
    assert found["megabytes"] < 5 * longest


def test_long_lines_are_broken_lines(monkeypatch, tmp_path):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(reading, "LOCAL_CHUNK", 30)
    fits, long = record("x" * 20), json.dumps({"text": "y" * 1000})
    padded = json.dumps({"text": "z"}) + " " * 1000  # its beginning alone would be a document
    path = write_lines(tmp_path / "t.json", [fits, long, padded, json.dumps({"text": "last"})])
    counter, found = read(path)
    assert found == ["x" * 20, "last"]
    assert (counter.lines, counter.broken) == (4, 2)
    assert len(fits) <= 100
    with pytest.raises(UserError, match=r"MAX_BROKEN_LINES=0.1 but 2 of 4 .*t.json'.*yyyy"):
        read_strictly(path)


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "\xff\xfe not UTF-8"}',
        b"[" * 1_000_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"text": ' + b"9" * 100_000 + b"}",
        b'{"url": "no text"}',
        b"\x00",
    ],
    ids=["not UTF-8", "deep list", "deep object", "long number", "no text", "zero"],
)
def test_broken_lines(line, tmp_path):
    path = tmp_path / "t.json"
    path.write_bytes(line + b"\n" + record("good").encode() + b"\n")
    counter, found = read(path)
    assert found == ["good"]
    assert (counter.lines, counter.broken) == (2, 1)


@pytest.mark.parametrize("spaces", ["", " ", "\n"])
def test_long_texts_are_cut_at_white_space(spaces, monkeypatch, tmp_path):
    monkeypatch.setattr(json_texts, "MAX_TEXT_CHARS", 50)
    text = (spaces or "x").join(f"wörd{n}" for n in range(200))
    _, found = read(write_lines(tmp_path / "t.json", [record(text)]))
    assert "".join(found) == text
    assert max(map(len, found)) <= 50
    assert min(map(len, found[:-1])) > (40 if spaces else 49)
    assert all(piece.endswith(spaces) for piece in found[:-1])


def test_members_and_zeros_of_gzip(tmp_path):
    """Files that were joined, and filled up with zeros, as tape and block tools do."""
    one, two = (gzip.compress(f"{record(text)}\n".encode()) for text in ("one", "two"))
    path = tmp_path / "t.json.gz"
    path.write_bytes(one + two + bytes(500))
    assert read(path)[1] == ["one", "two"]
    path.write_bytes(b"")
    assert read(path)[1] == []
    path.write_bytes(one + two[:-3])
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN leads to .* is damaged \(it ends too ear"):
        read(path)


@pytest.fixture
def one_text(tmp_path):
    """A config whose only training text is long, in one line."""
    text = " ".join(f"{n:06d}" for n in range(40_000))
    return docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        json_train_glob=write_lines(tmp_path / "t.json", [record(text)]),
        json_validation_glob=write_lines(tmp_path / "v.json", map(record, sentences(40))),
        vocabulary="bytes",
        batch_size=16,
    )


def test_training_on_one_long_text(one_text, monkeypatch):
    monkeypatch.setattr(json_texts, "MAX_TEXT_CHARS", 50_000)
    words = vocabulary(one_text)
    rows = next(train_stream(one_text))["encoder_input_tokens"]
    assert all(words.decode(row).count("<extra_id_") == 3 for row in rows)
    assert len(list(eval_batches(one_text))) == 3


def test_blocks_by_number(tmp_path):
    """A block is the same whether its file is read on, or begun anew."""
    path = write_lines(tmp_path / "t.json.gz", map(record, sentences(1000)))
    in_order, anywhere = json_texts.Blocks(), json_texts.Blocks()
    expected = [in_order.get(path, "X", number) for number in range(9)]
    assert list(map(len, expected)) == [128] * 7 + [1000 - 7 * 128, 0]
    for number in (3, 4, 0, 8, 7, 7, 2):
        assert anywhere.get(path, "X", number) == expected[number]


LINES = f"{record('one')}\n".encode()


def tar(content):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("t.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("t.json", lzma.compress(LINES), "compressed by xz: give it as gzip"),
        ("t.json.bz2", bz2.compress(LINES), "compressed by bzip2: give it as gzip"),
        ("t.json.lz4", b"\x04\x22\x4d\x18", "compressed by lz4: give it as gzip"),
        ("t.tar", tar(LINES), "an archive of tar: unpack it"),
        ("t.tar.gz", gzip.compress(tar(LINES), mtime=0), "an archive of tar: unpack it"),
        ("t.parquet", b"PAR1\x15\x04", "Parquet: give JSON lines"),
        ("t.arrow", b"ARROW1\0\0", "Arrow: give JSON lines"),
        ("t.json", LINES.decode().encode("utf-16"), "UTF-16: give it as UTF-8"),
        ("t.json.gz", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("t.json", b"<!DOCTYPE html>\n", "an HTML page: give JSON lines"),
    ],
)
def test_another_format_is_named(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"C4_JSON_TRAIN leads to '.*{name}', which is {kind}"):
        read(tmp_path / name)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \t\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_line_ends_empty_lines_and_a_byte_order_mark(tmp_path, begin, end):
    path = tmp_path / "t.json"
    path.write_bytes(begin + end.join([record("one").encode(), record("two").encode()]) + end)
    counter, texts = read(path)
    assert (texts, counter.lines, counter.broken) == (["one", "two"], 2, 0)


def test_zstd(tmp_path, monkeypatch):
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "t.jsonl.zst"
    texts = [f"text {n} " * 50 for n in range(2000)]
    frames = ["\n".join(map(record, part)).encode() + b"\n" for part in (texts[:9], texts[9:])]
    content = b"".join(map(zstandard.ZstdCompressor().compress, frames))
    path.write_bytes(content)
    assert read(path)[1] == texts
    for damaged, why in ((content[:-5], "it ends too early"), (content[:99] + content, "")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"whose compression is damaged \({why}"):
            read(path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UserError, match="compressed by zstd: `pip install zstandard` to have it"):
        read(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('[{"text": "a"}, {"text": "b"}]', "a JSON array where each line is to be an object"),
        ('{"content": "a", "id": 3}', "whose fields are 'content', 'id'"),
        ('{"text": "caf\xe9"}', "which is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, line, what):
    (tmp_path / "t.json").write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match=f"MAX_BROKEN_LINES=0.1 but 1 of 1 .*, {what}: mend"):
        read_strictly(str(tmp_path / "t.json"))


def test_a_folder_is_no_glob(tmp_path):
    write_lines(tmp_path / "t.json", [record("one")])
    with pytest.raises(UserError, match=r"is a folder: give a glob of its files, as in '"):
        json_files.check_there(f"{tmp_path}/", "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json.GZ", gzip.compress(LINES, mtime=0)),
        ("t.json", gzip.compress(LINES, mtime=0)),
        ("t.json.gz", LINES),  # inflated on the way
    ],
)
def test_gzip_is_seen_by_its_content(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name)[1] == ["one"]
