"""Lines that no honest shard has: nothing takes more memory than its bound, or is lost."""

import json
import subprocess
import sys

import pytest

from switchx.data import eval_batches, train_stream, vocabulary
from switchx.data.files import lines
from switchx.data.tasks import text_files, texts
from switchx.errors import UserError
from switchx.storage import reading

from ..conftest import docs_config, record, sentences, write_lines


def read(path):
    counter = texts.LineCounter(1.0)
    return counter, [text.decode() for text in texts_of(str(path), counter)]


def texts_of(path, counter):
    blocks = texts.blocks_of(path, "C4_JSON_TRAIN")
    return [text for block in blocks for text in counter.parse(block)]


def read_strictly(path):
    counter = texts.LineCounter(0.1)
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
    sentence = r"MAX_BROKEN_LINES=0.1 but 2 of 4 .*t.json': '.*yyyy', which is too long"
    with pytest.raises(UserError, match=sentence):
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
    path.write_bytes(record("good").encode() + b"\n" + line + b"\n")
    counter, found = read(path)
    assert found == ["good"]
    assert (counter.lines, counter.broken) == (2, 1)


@pytest.mark.parametrize("spaces", ["", " ", "\n"])
def test_long_texts_are_cut_at_white_space(spaces, monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "MAX_TEXT_CHARS", 50)
    text = (spaces or "x").join(f"wörd{n}" for n in range(200))
    _, found = read(write_lines(tmp_path / "t.json", [record(text)]))
    assert "".join(found) == text
    assert max(map(len, found)) <= 50
    assert min(map(len, found[:-1])) > (40 if spaces else 49)
    assert all(piece.endswith(spaces) for piece in found[:-1])


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
    monkeypatch.setattr(texts, "MAX_TEXT_CHARS", 50_000)
    words = vocabulary(one_text)
    rows = next(train_stream(one_text))["encoder_input_tokens"]
    assert all(words.decode(row).count("<extra_id_") == 3 for row in rows)
    assert len(list(eval_batches(one_text))) == 3


def test_blocks_by_number(tmp_path):
    """A block is the same whether its file is read on, or begun anew."""
    path = write_lines(tmp_path / "t.json.gz", map(record, sentences(1000)))
    in_order, anywhere = texts.Blocks(), texts.Blocks()
    expected = [in_order.get(path, "X", number).records for number in range(9)]
    assert list(map(len, expected)) == [128] * 7 + [1000 - 7 * 128, 0]
    for number in (3, 4, 0, 8, 7, 7, 2):
        assert anywhere.get(path, "X", number).records == expected[number]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[1, 2]", ", where JSON lines have one whole object in each line"),
        ('{"text": "a"},', ", where JSON lines have one whole object in each line"),
        ('{"text": ["a"]}', ", whose 'text' is no text but of type list"),
        ('{"content": "a", "id": 3}', ", which has no 'text'; its fields are 'content', 'id'"),
        ('{"text": "caf\xe9"}', ", which is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path, line, what):
    (tmp_path / "t.json").write_bytes(f"{record('good')}\n{line}\n".encode("latin-1"))
    sentence = f"MAX_BROKEN_LINES=0.1 but 1 of 2 lines .* line 2 of '.*t.json': '.*'{what}: mend"
    with pytest.raises(UserError, match=sentence):
        read_strictly(str(tmp_path / "t.json"))


def test_a_folder_is_no_glob(tmp_path):
    write_lines(tmp_path / "t.json", [record("one")])
    with pytest.raises(UserError, match=r"is a folder: give a glob of its files, as in '"):
        text_files.check_there(text_files.Given("X", f"{tmp_path}/"))
