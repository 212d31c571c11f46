"""docs/training.md says what a resume does with another value of each macro; that is tried here."""

import dataclasses
import functools
import json
import re
from pathlib import Path

import pytest

from switchx import data
from switchx.api.starting import beginning
from switchx.errors import UserError
from switchx.settings import Request, load, read_flag
from switchx.training.checkpoints.identity import identity, sealed
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.resets import Resets
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]

# Another value of each, where the value of the run below is not a number to which 1 can be added.
OTHER = {
    "MIXTURE_OR_TASK_NAME": "python_docs_span_corruption",
    "MIXTURE_OR_TASK_MODULE": "tests.data.own_tasks",
    "MIXTURE_TASKS": {"python_docs_span_corruption": 2.0},
    "MIXTURE_MAXIMUM": 10,
    "MIXTURE_STARTS": {"python_docs_span_corruption": 5},
    "TASK_FEATURE_LENGTHS": {"inputs": 64, "targets": 64},
    "VOCABULARY": "python_docs",
    "SCHEDULE": "linear",
    "DECAY_SHARE": 0.2,
    "START_FROM": "elsewhere",
    "START_CHECKPOINT": "best",
    "START_STEP": "continue",
    "START_OPTIMIZER": True,
    "START_CHANGES": ("layers",),
    "START_FEED_FORWARDS": "mean",
    "START_EXPERTS": (0,),
    "START_FRESH": ("*/router/*",),
    "CHECKPOINT_STEPS": (3,),
    "SCORE_EXAMPLES": 3,
    "BEST_SCORE": "average",
    "DECODING_METHOD": "beam",
    "OPTIMIZER": "adamw",
    "OBJECTIVE": "distill",
    "TEACHER": "elsewhere",
    "TEACHER_CHECKPOINT": "best",
    "TEACHER_SHARE": 0.5,
    "TEACHER_DTYPE": "bfloat16",
    "TEACHER_LOGITS": "elsewhere",
    "ON_BAD_LOSS": "skip",
    "DTYPE": "float32",
    "REMAT": "full",
    "DISPATCHER": "einsum",
    "RAGGED_POOLS": 2,
    "LOSS_SPIKE": 2.0,
    "METRIC_WRITERS": (),
    "CLIP_GLOBAL_NORM": 1.0,
    "CLIP_BY_UNIT": 0.1,
    "BALANCE_LOSS_OVER": "batch",
    "BALANCE_QUANTILE": 1.0,
    "FREEZE": ("experts",),
    "EVAL_BATCH_SIZE": 16,
    "EXPERT_DROPOUT_RATE": 0.4,
    "WEIGHT_DECAY": 0.1,
    "LABEL_SMOOTHING": 0.1,
    "DROPOUT_RATE": 0.1,
    "MAX_BROKEN_LINES": 0.5,
    "BATCH_SIZE": 16,
    "DATA_SHARDS": 2,
    "TRAIN_STEPS": 7,
    "TFDS_DATA_DIR": "elsewhere",
    "CACHE_DIR": "elsewhere",
    "C4_JSON_TRAIN": "other.jsonl",
    "C4_JSON_VALIDATION": "other.jsonl",
    "TEXT_FILES": {"train": "other.jsonl"},
    "TEXT_FIELD": "content",
    "PREPARED_DIR": "absent",
    "TASK_FILES": {"train": "other.jsonl"},
    "TASK_FIELDS": {"inputs": "text"},
    "TASK_METRICS": ("accuracy",),
}
# What goes with it.
BESIDE = {"RAGGED_POOLS": {"DISPATCHER": "ragged"}}
ONCE = {"RESET_DATA", "RESET_OPTIMIZER"}
OF_SWEEPS = {"SWEEP_DIR", "BUDGET_FLOPS"}


def table():
    """What the document says of each macro, in the order of its rows."""
    text = (ROOT / "docs/training.md").read_text()
    section = text.partition("\n## Going on with other settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)
    return [(name, says) for names, says in rows for name in re.findall("`(.*?)`", names)]


def macros():
    text = (ROOT / "configs/base.gin").read_text()
    return re.findall(r"^([A-Z0-9_]+) = ", text, re.MULTILINE)


def test_every_macro_stands_in_the_table_once():
    assert sorted(name for name, _ in table()) == sorted(macros())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What is compared of a run: the settings, the identity of a checkpoint, a data position."""
    folder = tmp_path_factory.mktemp("run")
    for name in ("train", "validation", "other"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name * 99}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        began = settings()
        checkpoint = folder / "run/checkpoints/2"
        (checkpoint / "identity").mkdir(parents=True)
        (checkpoint / "position").mkdir()
        own = identity(began.run.model, began.run.optimizer.name, "v1")
        content = json.dumps(sealed({**own, "shards": 1, "arrays": {}}))
        (checkpoint / "identity/metadata").write_text(content)
        digest = data.vocabulary_digest(began.data)
        from switchx.data.streamed import position

        read = position.settings_of(began.data, digest)
        state = position.pack(read, position.Position(8, [], {}, {}))
        (checkpoint / "position/shard-00000-of-00001").write_bytes(b"a hash\n" + state)
        (folder / "run/start.json").write_text('{"from": "fresh", "step": 0}')
        (folder / "run/run.json").write_text('{"format": 1, "switchx": "0"}')
        yield began


def settings(**changes):
    files = ("--gin.C4_JSON_TRAIN=train.jsonl", "--gin.C4_JSON_VALIDATION=validation.jsonl")
    flags = [f"--gin.{name}={value!r}" for name, value in changes.items()]
    asked = [
        # As of a file: on the command line what does nothing beside the others is refused.
        dataclasses.replace(read_flag(flag.removeprefix("--gin.")), file="my.gin")
        for flag in (*SMALL, *files, "--gin.TRAIN_STEPS=6", "--gin.MODEL_DIR=run", *flags)
    ]
    return load(Request(bindings=tuple(asked)))


def another(name, began):
    if name in OTHER:
        return OTHER[name]
    value = began.gin.macro(name)
    return not value if isinstance(value, bool) else value + 1


def resume(asked):
    beginning(asked)
    return check_resume(asked.run, "run", None, functools.partial(data.check_position, asked.data))


@pytest.mark.parametrize("name", sorted(set(macros()) - ONCE - OF_SWEEPS - {"MODEL_DIR"}))
def test_a_resume_does_what_the_table_says(run, name):
    says = dict(table())[name]
    asked = settings(**{name: another(name, run)}, **BESIDE.get(name, {}))
    if says.startswith("goes on"):
        assert resume(asked) == Resets()
        return
    assert says.startswith("refused")
    with pytest.raises(UserError, match=name) as caught:
        resume(asked)
    assert "\n" not in str(caught.value)
    for reset in ONCE:
        way_out = f"`{reset}`" in says
        assert (f"--gin.{reset}=True" in str(caught.value)) == (way_out and name != "PREPARED_DIR")
        if way_out:
            part = reset.removeprefix("RESET_").lower()
            assert resume(settings(**{name: another(name, run), reset: True})).covers(part, 2)
    if "`RESET" not in says:
        with pytest.raises(UserError, match="another MODEL_DIR"):
            resume(asked)


def test_train_steps_behind_the_run_are_refused(run):
    with pytest.raises(UserError, match="TRAIN_STEPS=1 lies behind"):
        resume(settings(TRAIN_STEPS=1))
