"""Settings that contradict each other are one line with both numbers, in every command alike."""

import json

import pytest

from switchx.data import DataConfig, known_ids, vocabulary
from switchx.data.tasks import names

LENGTHS = "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}"
SHORT = "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 10}"
LONG = "--gin.TASK_FEATURE_LENGTHS={'inputs': 4096, 'targets': 910}"
COMMANDS = {
    "train": ["train", "--model_dir=run"],
    "plan": ["plan", "--topology=cpu:1", "--output=plan"],
    "info": ["info"],
    "show": ["data", "show"],
    "prepare": ["data", "prepare", "--gin.PREPARED_DIR=set"],
    "check": ["data", "check"],
    "bench": ["data", "bench"],
}
CASES = {
    "rows of bytes": (
        ["--gin.VOCABULARY=bytes", "--gin.ModelConfig.vocab_size=300", LENGTHS],
        ["ModelConfig.vocab_size=300 is less than the 359 ids"],
    ),
    "rows of t5": (
        ["--gin.ModelConfig.vocab_size=8192", LENGTHS],
        ["ModelConfig.vocab_size=8192 is less than the 32100 ids"],
    ),
    "rows of mt5": (
        ["--gin.VOCABULARY=mt5", "--gin.ModelConfig.vocab_size=32128", LENGTHS],
        ["ModelConfig.vocab_size=32128 is less than the 250100 ids"],
    ),
    "lengths": (
        ["--gin.VOCABULARY=bytes", SHORT],
        ["'targets': 10}", "64 inputs makes 14 targets"],
    ),
    "sentinels of bytes": (
        ["--gin.VOCABULARY=bytes", LONG],
        ["4096 inputs take 227 sentinels and VOCABULARY='bytes' has 100"],
    ),
    "sentinels of t5": (
        ["--gin.ModelConfig.vocab_size=32128", LONG],
        ["4096 inputs take 227 sentinels and VOCABULARY='default' has 100"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("case", CASES)
def test_every_command_says_it_and_makes_nothing(command, tmp_path, name, case):
    flags, parts = CASES[case]
    text = tmp_path / "t.jsonl"
    text.write_text(json.dumps({"text": "some text"}) + "\n")
    outcome = command(
        *COMMANDS[name],
        "--gin_file=configs/models/tiny_switch.gin",
        "--gin.MIXTURE_OR_TASK_NAME=c4_json_span_corruption",
        "--gin.C4_JSON_TRAIN=t.jsonl",
        "--gin.C4_JSON_VALIDATION=t.jsonl",
        *([] if name in ("plan", "info") else ["--gin.TRAIN_STEPS=1"]),
        *flags,
    )
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert all(part in outcome.err for part in parts), outcome.err
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize("name", ["plan", "info", "show"])
def test_a_task_that_alone_knows_its_vocabulary_is_asked(command, name):
    own = ["--gin.MIXTURE_OR_TASK_MODULE=tests.data.own_tasks", "--gin.TRAIN_STEPS=1"]
    base = [*COMMANDS[name], "--gin_file=configs/models/tiny_switch.gin", *own]
    rows = ["--gin.MIXTURE_OR_TASK_NAME=own_shouting", "--gin.ModelConfig.vocab_size=300"]
    outcome = command(*base, *rows, LENGTHS)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert "ModelConfig.vocab_size=300 is less than the 359 ids" in outcome.err
    long = "--gin.TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 1024}"
    outcome = command(*base, "--gin.MIXTURE_OR_TASK_NAME=own_longer_spans", long)
    assert "sentinels and VOCABULARY='default' has 100" in outcome.err


def test_data_without_a_model_needs_none_that_fits(command, tmp_path):
    """Where no model was named, that of the quickstart is none of the user's."""
    given = [
        "--gin.MIXTURE_OR_TASK_NAME=c4_json_span_corruption",
        "--gin.C4_JSON_TRAIN=no",
        LENGTHS,
    ]
    assert "C4_JSON_TRAIN='no' matches no file" in command("data", "show", *given).err


@pytest.mark.parametrize("choice", ["bytes", "python_docs"])
def test_what_is_known_of_a_vocabulary_is_true(choice):
    config = DataConfig("a", {"inputs": 64, "targets": 16}, 1, vocabulary=choice)
    words = vocabulary(config)
    assert known_ids(config) == words.ids


def test_what_is_known_of_t5s_own():
    """Their sizes are those of the models that Google released with them, padded to 128 rows."""
    assert {name: -(-size // 128) * 128 for name, (size, _) in names.PUBLIC_IDS.items()} == {
        "t5": 32_128,
        "mt5": 250_112,
    }
