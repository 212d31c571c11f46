"""switchx infer: JSON lines in and out, and one sentence for each mistake."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from switchx import data
from switchx.cli.main import main
from switchx.errors import UserError
from switchx.settings import loading as gin_config
from switchx.sharding import MeshConfig
from switchx.training import checkpoints
from switchx.training.checkpoints import refusals
from tests.inference.helpers import Characters, answering_config, lively

VOCABULARY = Characters()
LINES = [{"text": "a __ b", "name": "é"}, {"text": "no blank"}, {"text": "__ __", "n": [1, None]}]


def trained_on_characters(config, model_dir, vocabulary):
    assert model_dir == "somewhere"
    if vocabulary != "characters":
        raise UserError("VOCABULARY does not match the checkpoint.")


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """Runs the command on a model that never was on a disk; returns its exit status."""
    model = answering_config(False, vocab_size=VOCABULARY.size)
    settings = SimpleNamespace(
        run=SimpleNamespace(model=model, mesh=MeshConfig(data=4, expert=2)),
        data=SimpleNamespace(feature_lengths={"inputs": 20, "targets": 6}),
        model_dir="somewhere",
    )
    monkeypatch.setattr(gin_config, "load", lambda args: settings)
    monkeypatch.setattr(data, "vocabulary", lambda config: VOCABULARY)

    def restore(model, model_dir, mesh, step):
        assert model_dir == "somewhere"
        if step == 7:
            raise UserError("--step=7 is not there.")
        return lively(model.config), 30

    monkeypatch.setattr(checkpoints, "restore_params", restore)
    monkeypatch.setattr(refusals, "check_model", trained_on_characters)

    def run(lines, *flags: str) -> int:
        text = lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode()
        (tmp_path / "in.jsonl").write_bytes(text)
        return main(["infer", f"--input={tmp_path / 'in.jsonl'}", *flags])

    return run


def test_each_line_comes_back_with_its_answer(infer, capsys):
    assert infer(LINES) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [{k: row[k] for k in line} for row, line in zip(rows, LINES, strict=True)] == LINES
    for row, blanks in zip(rows, (1, 0, 2), strict=True):
        assert list(row)[-3:] == ["output", "blanks", "filled"]
        assert len(row["blanks"]) == blanks
    assert rows[2]["filled"] == " ".join(rows[2]["blanks"])
    assert "é" in out
    assert "3 lines, checkpoint of step 30, greedy, 8 at a time" in err


def test_standard_input_and_a_file_out(infer, tmp_path, monkeypatch, capsys):
    infer(LINES)
    printed = capsys.readouterr().out
    stdin = "\n\n".join(map(json.dumps, LINES)) + "\n \n"  # empty lines are no lines
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
    assert infer([], "--input=-", f"--output={tmp_path / 'out.jsonl'}") == 0
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == printed
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_flags_reach_the_decoder(infer, capsys):
    def answers(*flags: str) -> list[str]:
        assert infer(LINES * 3, *flags) == 0
        return capsys.readouterr().out.splitlines()

    sampled = ("--method=sample", "--temperature=3", "--seed=4")
    assert answers("--method=sample", "--top_k=1") == answers()
    assert answers("--method=beam", "--num_beams=1") == answers()
    assert answers("--method=beam", "--length_penalty=5") != answers()
    assert answers(*sampled) == answers(*sampled, "--batch_size=16")
    assert answers(*sampled) != answers(*sampled[:2], "--seed=5")
    assert all(len(json.loads(line)["output"]) <= 12 for line in answers("--max_length=1"))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b'{"text": "a"}\nnot json', "line 2 of --input is not JSON"),
        (b'{"text": "a"}\n\n["text"]', "line 3 of --input is not an object with a string"),
        (b'{"txt": "a"}', "line 1 of --input is not an object with a string"),
        (b'{"text": 3}', "line 1 of --input is not an object with a string"),
        (b'{"text": "\xff"}', "line 1 of --input is not JSON"),
        (b"\n \n", "has no lines"),
        (b'{"text": "a"}\n{"text": "__ <extra_id_0>"}', "line 2 of --input: the text has blanks"),
        (b'{"text": "<extra_id_9>"}', "line 1 of --input: the blank <extra_id_9> is not in"),
        (b'{"text": "aaaaaaaaaaaaaaaaaaaa"}', "line 1 of --input has 21 tokens"),
    ],
)
def test_a_bad_line_is_named_and_nothing_written(infer, tmp_path, capsys, lines, complaint):
    assert infer(lines, f"--output={tmp_path / 'out.jsonl'}") == 2
    out, err = capsys.readouterr()
    assert complaint in err
    assert err.startswith("switchx: ")
    assert (out, err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--top_k=5"], "--top_k=5 has no effect with --method=greedy"),
        (["--num_beams=5", "--method=sample"], "leave it out or give --method=beam"),
        (["--method=beam", "--num_beams=0"], "--num_beams=0 must be at least 1"),
        (["--method=sample", "--top_p=2"], "--top_p=2.0 must be above 0 and at most 1"),
        (["--batch_size=12"], "--batch_size=12 must be a multiple of 8"),
        (["--step=7"], "--step=7 is not there"),
        (["--input=absent.jsonl"], "--input=absent.jsonl cannot be read"),
        (["--output=absent/out.jsonl"], "absent must be a writable folder"),
    ],
)
def test_a_bad_flag_is_named(infer, capsys, flags, complaint):
    assert infer(LINES, *flags) == 2
    out, err = capsys.readouterr()
    assert complaint in err
    assert (out, err.count("\n")) == ("", 1)


def test_another_vocabulary_than_the_trained_one_is_refused(infer, monkeypatch, capsys):
    monkeypatch.setattr(data, "vocabulary", lambda config: Characters(fingerprint="other"))
    assert infer(LINES) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "switchx: VOCABULARY does not match the checkpoint.\n")


def test_an_existing_file_is_not_written_over(infer, tmp_path, capsys):
    (tmp_path / "out.jsonl").write_text("precious")
    assert infer(LINES, f"--output={tmp_path / 'out.jsonl'}") == 2
    assert "exists; give the name of a new file" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "precious"


def test_a_failure_half_way_leaves_no_file(infer, tmp_path, monkeypatch):
    from switchx import inference

    def failing(*args):
        yield [1]
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "predict", failing)
    assert infer(LINES, f"--output={tmp_path / 'out.jsonl'}") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
