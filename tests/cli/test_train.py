"""`switchx train` and `switchx eval` on a small run: what they leave, show and go on from."""

import dataclasses
import json
import math
import re
import shutil
import signal

import pytest

from switchx import api, data, evaluation
from switchx.errors import UserError
from switchx.settings import Request, load
from switchx.training import TrainResult
from switchx.training.run_reader import metric_rows
from tests.writers.rows import values


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run, named otherwise and free to be written to."""
    return shutil.copytree(trained.run, tmp_path / "copied")


def steps(run, split="train"):
    return [row["step"] for row in metric_rows(run) if row["split"] == split]


def test_training_shows_what_it_made(trained):
    assert trained.outcome.status == 0, trained.outcome.err
    for part in (
        "Trained 4 steps in runs/quickstart",
        "validation loss",
        "unigram entropy",
        "bits per byte",
        "exactly right",
        "dead",
        " ____ ",
        "loss.png",
    ):
        assert part in trained.outcome.out
    names = ("config.gin", "model_info.txt", "metrics.jsonl", "loss.png", "expert_load.png")
    assert all((trained.run / name).stat().st_size for name in names)
    assert sorted(path.name for path in (trained.run / "checkpoints").iterdir()) == ["2", "4"]
    assert steps(trained.run) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("before", "said"), [(0, "step 3 is saved in runs/a"), (3, "before a step was done")]
)
def test_a_run_that_was_stopped_says_so(command, monkeypatch, before, said):
    stopped = TrainResult(3, signal.SIGTERM, {}, None, first_step=before)
    monkeypatch.setattr(api, "train_run", lambda *_: (stopped, []))
    outcome = command("train", "--model_dir=runs/a")
    assert outcome.status == 143
    assert outcome.err == f"switchx: stopped: {said}; the same command goes on from there\n"


def test_tensorboard_has_what_was_shown(trained):
    found = values(trained.run)
    samples = found["samples/text_summary"][1].tensor.string_val[0].decode()
    lines = [line.removeprefix("    ") for line in samples.splitlines()]
    assert sum(" ____ " in line for line in lines) > 1
    assert "\n".join(lines) in trained.outcome.out
    for name in ("loss", "expert_load"):
        picture = found[name][1].image.encoded_image_string
        assert picture == (trained.run / f"{name}.png").read_bytes()
    configuration = found["configuration/text_summary"][1].tensor.string_val[0].decode()
    assert "    TRAIN_STEPS = 4\n" in configuration


def test_the_shown_bits_per_byte_are_those_of_the_shown_loss(trained):
    loss, entropy, bits, unigram = (
        float(re.search(pattern, trained.outcome.out)[1])
        for pattern in (
            r"validation loss +([\d.]+)",
            r"unigram entropy +([\d.]+)",
            r"bits per byte +([\d.]+)",
            r"([\d.]+) from the tokens' frequencies",
        )
    )
    assert bits / unigram == pytest.approx(loss / entropy, rel=0.01)
    # Of bytes each is a token; a row has its sentinels and its end besides, which cost too.
    assert bits > loss / math.log(2)


def test_the_saved_configuration_is_the_run(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    saved = load(Request(("runs/quickstart/config.gin",)))
    assert (saved.run.trainer.train_steps, saved.data.batch_size) == (4, 8)
    assert saved.resolved == (trained.run / "config.gin").read_text()


def test_a_finished_run_started_again_keeps_its_record(copy, command):
    kept = {name: (copy / name).read_bytes() for name in ("metrics.jsonl", "config.gin")}
    outcome = command("train", f"--gin_file={copy}/config.gin", "--gin.LEARNING_RATE=0.5")
    assert outcome.status == 0, outcome.err
    assert f"Nothing was trained: {copy} is at step 4 already" in outcome.out
    assert "validation loss" in outcome.out
    assert {name: (copy / name).read_bytes() for name in kept} == kept
    assert not (copy / "config.0.gin").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gin.NUM_EXPERTS=16"], "NUM_EXPERTS is 8 there and 16 here"),
        (["--gin.OPTIMIZER=adamw"], "OPTIMIZER='adamw' is not what the checkpoint"),
        (["--gin.VOCABULARY=python_docs"], "vocab_size=384 is less than the 2100 ids"),
        (["--gin.DATA_SHARDS=2"], "DATA_SHARDS=2, but the data of the checkpoint"),
        (["--gin.SEED=1"], "with 0: set that, or start the data anew with --gin.RESET_DATA=True"),
        (["--gin.TRAIN_STEPS=2"], "TRAIN_STEPS=2 lies behind the run"),
    ],
)
def test_what_cannot_go_on_is_refused_and_changes_nothing(copy, command, flags, said):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    outcome = command("train", f"--gin_file={copy}/config.gin", "--gin.TRAIN_STEPS=6", *flags)
    assert outcome.status == 2, outcome.err
    assert said in outcome.err.splitlines()[-1]
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}.items() >= before.items()


@pytest.mark.usefixtures("nothing_shown")
def test_a_copied_run_goes_on_with_another_batch_size_and_then_other_data(trained, copy, command):
    before = (trained.run / "metrics.jsonl").read_bytes()

    def train(steps, *flags):
        flags = (f"--gin.TRAIN_STEPS={steps}", "--gin.EVAL_BATCH_SIZE=8", *flags)
        outcome = command("train", f"--gin_file={copy}/config.gin", *flags)
        assert outcome.status == 0, outcome.err
        identity = json.loads((copy / f"checkpoints/{steps}/identity/metadata").read_text())
        return outcome.err, identity["history"][2]

    said, examples = train(5, "--gin.BATCH_SIZE=16")
    assert "switchx: TRAIN_STEPS was 4 and is now 5 (SCHEDULE='cosine'" in said
    assert "resuming from step 4" in said
    assert "BATCH_SIZE was 8 and is now 16 (the data goes on at its next example; " in said
    assert examples == 4 * 8 + 16
    said, examples = train(6, "--gin.SEED=1", "--gin.RESET_DATA=True")
    assert "SEED was 0 and is now 1\n" in said
    assert "the data begins anew at step 5 (RESET_DATA)\n" in said
    assert examples == 16
    kept = load(Request((f"{copy}/config.gin",)))  # the seed, and nothing to be done again
    assert (kept.data.seed, kept.run.trainer.reset_data) == (1, False)
    assert steps(copy) == [1, 2, 3, 4, 5, 6]
    assert (trained.run / "metrics.jsonl").read_bytes() == before


def test_eval_gives_what_training_wrote(trained, command):
    (last,) = [r for r in metric_rows(trained.run) if (r["split"], r["step"]) == ("validation", 4)]
    assert (
        "evaluation reads the first 16 examples of the validation split, which has more\n"
        in trained.outcome.err
    )
    asked = ("eval", f"--model_dir={trained.run}", "--json", "--gin.EVAL_STEPS=2")
    outcome = command(*asked)
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["step"], found["examples"]) == (4, 16)
    assert (found["examples_in_split"], found["whole_split"]) == (None, False)
    for name in ("loss", "accuracy", "unigram_entropy"):
        assert found[name] == pytest.approx(last[name], rel=1e-6)


def test_ablate_shows_a_row_for_each_part(trained, command):
    (last,) = [r for r in metric_rows(trained.run) if (r["split"], r["step"]) == ("validation", 4)]
    outcome = command("ablate", f"--model_dir={trained.run}", "--gin.EVAL_STEPS=2")
    assert outcome.status == 0, outcome.err
    first, blank, head, whole, *parts = outcome.out.splitlines()
    assert (first, blank) == ("step 4, 16 of more examples", "")
    assert head.split() == ["loss", "nats"]
    assert whole.split() == ["the", "whole", "model", f"{last['loss']:.4f}"]
    assert any(row.startswith("without decoder 0 cross-attention ") for row in parts)
    for row in parts:
        loss, nats = map(float, row.split()[-2:])
        assert loss - nats == pytest.approx(last["loss"], abs=2e-4)


def test_a_step_that_is_not_there_is_said_before_anything_is_compiled(trained, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", None)
    with pytest.raises(
        UserError, match=r"--step=3 is not in MODEL_DIR=.*checkpoints there are 2, 4"
    ):
        api.Run(trained.run, step=3).evaluate()


def test_eval_reads_the_whole_split_each_example_once(trained, command):
    """Without the training data, in batches of any size; every row once, the last batch's too."""
    absent = f"--gin.C4_JSON_TRAIN={trained.folder}/absent.jsonl"
    flags = ("eval", f"--model_dir={trained.run}", absent)
    found = [
        json.loads(command(*flags, "--json", f"--gin.EVAL_BATCH_SIZE={size}").out)
        for size in (8, 64)
    ]
    rows = sum(1 for _ in data.eval_batches(one_by_one(trained)))
    for whole in found:
        assert (whole["examples"], whole["whole_split"]) == (rows, True)
        assert whole["examples_in_split"] == rows
        for name in ("loss", "accuracy", "unigram_entropy"):
            assert whole[name] == pytest.approx(found[0][name], rel=1e-5)
    shown = command(*flags, "--step=2").out
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert (lines["step"], lines["examples"]) == ("2", f"{rows} of {rows}")


def one_by_one(trained):
    """The run's validation split, an example at a time."""
    config = load(Request((f"{trained.run}/config.gin",))).data
    return dataclasses.replace(config, eval_batch_size=1, eval_batches=None)


@pytest.mark.parametrize("name", ["info", "plan", "data"])
def test_a_run_that_is_named_alone_is_described(trained, command, name):
    flags = {"info": ["--json"], "plan": ["--topology=cpu:8", "--json"], "data": ["show"]}[name]
    outcome = command(name, *flags, f"--model_dir={trained.run}")
    assert outcome.status == 0, outcome.err
    if name == "info":
        assert json.loads(outcome.out)["parameters"]["embedding"] == 384 * 32
    refused = command(name, *flags, "--model_dir=absent")
    assert refused.status == 2
    assert "--model_dir=absent holds no config.gin" in refused.err
