"""Training and evaluating on a mixture of short texts, packed, each of its tasks alone too."""

import json

import pytest

from switchx.cli.main import main
from switchx.training.run_reader import metric_rows

pytestmark = pytest.mark.usefixtures("one_device", "nothing_shown")

TASKS = ["own_branching", "own_shouting"]
SMALL = [
    "--gin.MIXTURE_OR_TASK_MODULE='tests.data.own_tasks'",
    "--gin.VOCABULARY='default'",
    "--gin.PACK=True",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_STEPS=2",
    "--gin.EVAL_PERIOD=2",
    "--gin.CHECKPOINT_PERIOD=2",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 64}",
    "--gin.ENCODER_GROUP_SIZE=64",
    "--gin.DECODER_GROUP_SIZE=64",
    "--gin.ModelConfig.d_model=32",
    "--gin.ModelConfig.d_ff=64",
    "--gin.ModelConfig.num_layers=1",
    "--gin.SwitchConfig.every=1",
    "--gin.TRAIN_STEPS=2",
    "--model_dir=run",
]
MIXTURE = (
    "--gin.MIXTURE_OR_TASK_NAME='both'",
    "--gin.MIXTURE_TASKS={'own_branching': 1, 'own_shouting': 2}",
)
EACH = "--gin.EVAL_EACH_TASK=True"


def switchx(capsys, *argv):
    capsys.readouterr()
    assert main(list(argv)) == 0, capsys.readouterr().err
    return capsys.readouterr()


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run", switchx(capsys, "train", *SMALL, *MIXTURE, EACH).err


def of(values):
    return {name: values[name] for name in ("loss", "accuracy", "unigram_entropy")}


def test_each_task_as_if_it_were_evaluated_alone(trained, capsys):
    run, said = trained
    rows = {(row["step"], row["split"]): row for row in metric_rows(run)}
    splits = {split for _, split in rows}
    assert splits == {"train", "validation", *(f"validation/{task}" for task in TASKS)}
    losses = "    ".join(
        f"{task:<13}  {rows[2, f'validation/{task}']['loss']:.4f}" for task in TASKS
    )
    assert f"step 2: validation loss of each task\n  {losses}\n" in said
    assert (run / "tensorboard" / "validation" / TASKS[0]).is_dir()

    found = json.loads(switchx(capsys, "eval", *SMALL, *MIXTURE, EACH, "--json").out)
    assert of(found) == pytest.approx(of(rows[2, "validation"]), rel=1e-6)
    assert sorted(found["tasks"]) == TASKS
    task = TASKS[1]
    name = f"--gin.MIXTURE_OR_TASK_NAME='{task}'"
    alone = (name, "--gin.MIXTURE_TASKS=None", EACH, "--json")
    alone = json.loads(switchx(capsys, "eval", *SMALL, *alone).out)
    assert "tasks" not in alone
    assert of(found["tasks"][task]) == of(alone)
    assert of(rows[2, f"validation/{task}"]) == pytest.approx(of(alone), rel=1e-6)
    assert found["tasks"][TASKS[0]]["loss"] != found["tasks"][TASKS[1]]["loss"]
