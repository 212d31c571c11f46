"""switchx infer: JSON lines in and out, and one sentence for each mistake."""

import io
import json
import lzma
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switchx.cli.main import main
from tests.helpers import Outcome

LINES = [{"text": "a __ b", "name": "é"}, {"text": "no blank"}, {"text": "__ __", "n": [1, None]}]


@pytest.fixture
def infer(trained, tmp_path, capsys):
    """Runs the command on the shared run."""

    def run(lines, *flags: str) -> Outcome:
        text = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
        (tmp_path / "in").write_bytes(text)
        capsys.readouterr()
        flags = (f"--input={tmp_path / 'in'}", "--max_length=6", *flags)
        return Outcome(main(["infer", f"--model_dir={trained.run}", *flags]), *capsys.readouterr())

    return run


def answers(outcome: Outcome) -> list[dict]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_each_line_comes_back_with_its_answer(infer, tmp_path, monkeypatch):
    outcome = infer(LINES)
    rows = answers(outcome)
    assert [{k: row[k] for k in line} for row, line in zip(rows, LINES, strict=True)] == LINES
    for row, blanks in zip(rows, (1, 0, 2), strict=True):
        assert list(row)[-3:] == ["output", "blanks", "filled"]
        assert len(row["blanks"]) == blanks
    assert rows[2]["filled"] == " ".join(rows[2]["blanks"])
    assert "é" in outcome.out
    assert "3 lines, checkpoint of step 4, greedy, 8 at a time" in outcome.err

    stdin = "\n\n".join(map(json.dumps, LINES)) + "\n \n"  # empty lines are no lines
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    to_file = infer([], "--input=-", f"--output={tmp_path / 'out.jsonl'}")
    assert (to_file.status, to_file.out) == (0, "")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.jsonl"]


def test_flags_reach_the_decoder(infer):
    def outputs(*flags: str) -> list[str]:
        return [row["output"] for row in answers(infer(LINES * 3, *flags))]

    greedy = outputs()
    assert outputs("--method=sample", "--top_k=1") == greedy
    assert outputs("--method=beam", "--num_beams=1") == greedy
    sampled = ("--method=sample", "--temperature=3")
    drawn = outputs(*sampled, "--seed=4")
    assert outputs(*sampled, "--seed=4", "--batch_size=16") == drawn
    assert outputs(*sampled, "--seed=5") != drawn


def test_lone_surrogates_are_answered_as_training_reads_them(infer):
    lines = rb'{"text": "a __ \ud800b", "\udfff": ["\ud800"]}'
    (row,) = answers(infer(lines))
    assert (row["text"], row["?"]) == ("a __ ?b", ["?"])


def test_what_no_json_has_becomes_null(infer):
    (row,) = answers(infer(b'{"text": "a __", "x": [NaN, -Infinity, 1e999, 0.5]}'))
    assert row["x"] == [None, None, None, 0.5]


def test_a_prepared_set_that_is_gone_is_not_missed(infer):
    assert answers(infer(LINES, "--gin.PREPARED_DIR='gone'")) == answers(infer(LINES))
    refused = infer(LINES, "--gin.PREPARED_DIR='gone'", "--gin.VOCABULARY=default")
    assert (refused.status, "holds no prepared set of" in refused.err) == (2, True)


def test_a_terminal_without_unicode_gets_json_too(infer, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert infer(LINES).status == 0
    first = written.getvalue().splitlines()[0]
    assert json.loads(first)["name"] == "é"


def test_lines_of_text_and_compressed_rows(infer, tmp_path):
    """As of JSON lines; what a row has besides comes back."""
    expected = answers(infer(LINES))
    text = "\n".join(row["text"] for row in LINES).encode()
    assert [row["output"] for row in answers(infer(text))] == [row["output"] for row in expected]
    rows = [{"text": row["text"], "n": number} for number, row in enumerate(LINES)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows")
    for content in ((tmp_path / "rows").read_bytes(), lzma.compress(json.dumps(rows).encode())):
        found = answers(infer(content))
        assert [row["filled"] for row in found] == [row["filled"] for row in expected]
        assert [row["n"] for row in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b'{"text": "a"}\nnot json', 'line 2 of --input has no "text" that can be read: give'),
        (b'{"text": "a"}\n\n["text"]', 'line 3 of --input has no "text" that can be read: give'),
        (
            b'{"txt": "a"}',
            "line 1 of --input has no \"text\" that can be read (its fields are 'txt')",
        ),
        (b'{"text": 3}', 'line 1 of --input has no "text" that can be read'),
        (b'{"text": "\xff"}', 'line 1 of --input has no "text" that can be read: give'),
        (b'[{"text": "a"}, 7]', 'element 2 of --input has no "text" that can be read: give'),
        (b'[{"text": "a"}', "which begins as a JSON array and is none (at element 1: it ends"),
        (b"\n \n", "has no lines"),
        (b'{"text": "a"}\n{"text": "__ <extra_id_0>"}', "line 2 of --input: the text has blanks"),
        (b'{"text": "<extra_id_900>"}', "line 1 of --input: the blank <extra_id_900> is not in"),
        (b'{"text": "' + b"a" * 70 + b'"}', "line 1 of --input: a text of 71 tokens"),
    ],
)
def test_a_bad_line_is_named_and_nothing_written(infer, tmp_path, lines, complaint):
    outcome = infer(lines, f"--output={tmp_path / 'out.jsonl'}")
    assert outcome.status == 2
    assert complaint in outcome.err
    assert outcome.err.startswith("switchx: ")
    assert (outcome.out, outcome.err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--top_k=5"], "--top_k=5 has no effect with --method=greedy"),
        (["--num_beams=5", "--method=sample"], "leave it out or give --method=beam"),
        (["--method=beam", "--num_beams=0"], "--num_beams=0 must be at least 1"),
        (["--method=sample", "--top_k=2147483648"], "--top_k=2147483648 must be from 0 (all"),
        (["--max_length=1048577"], "--max_length=1048577 must be at most 1048576"),
        (["--method=sample", "--top_p=2"], "--top_p=2.0 must be above 0 and at most 1"),
        (["--batch_size=12"], "--batch_size=12 must be a multiple of 8"),
        (["--step=7"], "--step=7"),
        (["--input=absent.jsonl"], "--input leads to 'absent.jsonl', which cannot be read"),
        (["--output=absent/out.jsonl"], "absent' must be a writable folder"),
        (["--gin.VOCABULARY=python_docs"], "VOCABULARY"),
    ],
)
def test_a_bad_flag_is_named(infer, flags, complaint):
    outcome = infer(LINES, *flags)
    assert outcome.status == 2
    assert complaint in outcome.err
    assert (outcome.out, outcome.err.count("\n")) == ("", 1)


def test_a_vocabulary_that_cannot_be_had_is_of_no_line(infer, tmp_path):
    cache = tmp_path / "in"  # a file
    outcome = infer(LINES, "--gin.VOCABULARY=python_docs", f"--gin.CACHE_DIR={cache}")
    assert outcome.status == 2
    assert f"switchx: CACHE_DIR='{cache}/python_docs" in outcome.err
    assert "line 1" not in outcome.err


def test_an_existing_file_is_not_written_over(infer, tmp_path):
    (tmp_path / "out.jsonl").write_text("precious")
    outcome = infer(LINES, f"--output={tmp_path / 'out.jsonl'}")
    assert outcome.status == 2
    assert "exists already: give the name of a new one" in outcome.err
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_a_failure_half_way_leaves_no_file(infer, trained, tmp_path):
    run = shutil.copytree(trained.run, tmp_path / "damaged")
    for path in (run / "checkpoints/4").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(b"\0" * path.stat().st_size)
    outcome = infer(LINES, f"--model_dir={run}", f"--output={tmp_path / 'out.jsonl'}")
    assert outcome.status == 1
    assert "is damaged" in outcome.err
    assert not list(tmp_path.glob("out*"))
