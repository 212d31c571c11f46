"""The commands as a user types them, one after the other, on the embedded corpus."""

import json
import os
import subprocess
import sys

import pytest

SMALL = [
    "--gin.BATCH_SIZE=4",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
    "--gin.ENCODER_GROUP_SIZE=256",
    "--gin.DECODER_GROUP_SIZE=128",
    "--gin.ModelConfig.d_model=32",
    "--gin.ModelConfig.d_ff=64",
    "--gin.LOG_PERIOD=1",
    "--gin.EVAL_STEPS=2",
    "--gin.CHECKPOINT_PERIOD=2",
]


def switchx(*arguments, cwd, stdin=""):
    environment = {**os.environ, "XLA_FLAGS": ""}  # one device, as on a laptop
    return subprocess.run(
        [sys.executable, "-m", "switchx.cli.main", *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    result = switchx("train", "--gin.TRAIN_STEPS=4", *SMALL, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_training_shows_what_it_made(trained):
    folder, shown = trained
    for part in ("validation loss", "unigram entropy", "dead", " ____ ", "loss.png"):
        assert part in shown
    run = folder / "runs" / "quickstart"
    names = ("config.gin", "model_info.txt", "metrics.jsonl", "loss.png", "expert_load.png")
    assert all((run / name).stat().st_size for name in names)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_the_same_command_goes_on_where_it_ended(trained):
    folder, _ = trained
    result = switchx("train", "--gin.TRAIN_STEPS=6", *SMALL, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "resuming from step 4" in result.stderr
    rows = (folder / "runs/quickstart/metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, rows) if row["split"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_eval_and_infer_need_the_run_directory_alone(trained):
    folder, _ = trained
    result = switchx("eval", "--model_dir=runs/quickstart", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert 0 < json.loads(result.stdout)["loss"] < 20
    line = {"text": "Return the __ of the list, or __ if it is empty.", "id": 7}
    result = switchx(
        "infer", "--model_dir=runs/quickstart", cwd=folder, stdin=json.dumps(line) + "\n"
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["text"], answer["id"], len(answer["blanks"])) == (line["text"], 7, 2)


def test_another_vocabulary_than_the_checkpoints_is_refused(trained):
    folder, _ = trained
    result = switchx("train", "--gin.VOCABULARY=bytes", *SMALL, cwd=folder)
    assert result.returncode == 2
    *changed, refusal = result.stderr.splitlines()
    assert "vocabulary does not match" in refusal
    assert "switchx: VOCABULARY was 'default' and is now 'bytes'" in changed
    assert "Traceback" not in result.stderr
