"""switchx data as typed: tables, figures, and one line for each mistake."""

import re

import pytest

from switchx.cli.main import main

from ..data.prepared.test_preparation import command, json_config


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Of a prepared set of JSON lines."""
    given = command(json_config(tmp_path_factory.mktemp("json")))[5:]
    assert main(["data", "prepare", *given]) == 0
    return given


def test_check_prints_a_row_for_each_split(flags, capsys):
    assert main(["data", "check", *flags]) == 0
    head, train, validation, last = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["task", "split", "shards", "records", "broken"]
    assert train.split()[1:3] == ["train", "3"]
    assert validation.split()[1:3] == ["validation", "1"]
    assert last == "nothing is wrong"


def test_show_prints_the_text_and_what_became_of_it(flags, capsys):
    assert main(["data", "show", "--count=2", *flags]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 96
    heads = [line.split()[0].strip(",") for line in out.splitlines() if line[:4] != "    "]
    assert heads == ["example", "text", "inputs", "targets"] * 2
    text, inputs, targets = re.split(r"^  \w+, [\d,]+ tokens\n", out, flags=re.MULTILINE)[1:4]
    assert "<extra_id" not in text
    assert "<extra_id_0>" in inputs
    assert "<extra_id_0>" in targets


def test_bench_compares_prepared_with_streamed(flags, capsys):
    assert main(["data", "bench", "--seconds=0.5", *flags]) == 0
    _, prepared, streamed, ratio = capsys.readouterr().out.splitlines()
    rates = [float(line.split()[1].replace(",", "")) for line in (prepared, streamed)]
    assert float(ratio.split()[-1]) == pytest.approx(rates[0] / rates[1], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "required: ACTION"),
        (["chek"], "invalid choice: 'chek'"),
        (["check"], "PREPARED_DIR is not set"),
        (["prepare"], "PREPARED_DIR is not set"),
        (["check", "--", "--runner=x"], "'--runner=x' is for `switchx data prepare` alone"),
        (["prepare", "--gin.PREPARED_DIR=x", "--shards=0"], "--shards=0 is no whole number"),
        (["prepare", "--gin.PREPARED_DIR=x", "--splits=test"], "lacks 'test'"),
        (
            [
                "prepare",
                "--gin.PREPARED_DIR=x",
                "--gin.MIXTURE_OR_TASK_NAME=c4_json_span_corruption",
                "--gin.C4_JSON_TRAIN=x",
                "--splits=tran, train",
            ],
            "has the splits 'train', 'validation' and lacks 'tran': name one that it has",
        ),
        (["prepare", "--gin.PREPARED_DIR=x", "--splits="], "--splits='' names no split: give some"),
        (["show", "--count=0"], "--count=0 is no count: give"),
        (["bench", "--seconds=nan"], "--seconds=nan is no time: give"),
        (["show", "--splits=train"], "--splits is not for `switchx data show`: leave it out"),
        (["check", "--sentinels=9"], "--sentinels is not for `switchx data check`: leave it out"),
        (["show", "--num_processes=2"], "--num_processes=2 is for several hosts, and `switchx"),
        (["vocabulary", "--gin.SEED=1"], "--gin.SEED=1 does nothing in `switchx data vocabulary`"),
    ],
)
def test_mistakes(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_flags_behind_dashes_are_for_data(capsys):
    assert main(["train", "--", "--x"]) == 2
    assert "where `switchx train` takes nothing" in capsys.readouterr().err


def test_another_number_of_shards_is_refused(flags, capsys):
    assert main(["data", "prepare", "--shards=7", *flags]) == 2
    assert "--shards or --splits={'train': 7, 'validation': 7} but" in capsys.readouterr().err
