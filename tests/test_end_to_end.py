"""Commands as a user types them, in processes of their own, on the embedded corpus."""

import json
import os
import re
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
    "--gin.ModelConfig.num_layers=1",
    "--gin.SwitchConfig.every=1",
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
    return folder, result


# How a line of ours begins; a library's begins otherwise. The corpus's tokens are kept for all
# runs: the first one says so, which this one may be.
OURS = re.compile(
    r"(axis|replica|data|expert|model|devices) +(size|\d)|[\d,]+ parameters; |step +\d+|data: "
    r"|evaluation reads |switchx: [\d,]+ tokens in "
)


def test_training_shows_what_it_made_and_nothing_else(trained):
    folder, result = trained
    for part in ("validation loss", "unigram entropy", "dead", " ____ ", "loss.png"):
        assert part in result.stdout
    assert [line for line in result.stderr.splitlines() if not OURS.match(line)] == []
    run = folder / "runs" / "quickstart"
    names = ("config.gin", "model_info.txt", "metrics.jsonl", "loss.png", "expert_load.png")
    assert all((run / name).stat().st_size for name in names)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "4"]


def test_infer_needs_the_run_directory_alone(trained):
    folder, _ = trained
    line = {"text": "Return the __ of the list, or __ if it is empty.", "id": 7}
    result = switchx(
        "infer", "--model_dir=runs/quickstart", cwd=folder, stdin=json.dumps(line) + "\n"
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["text"], answer["id"], len(answer["blanks"])) == (line["text"], 7, 2)
    assert result.stderr == "1 line, checkpoint of step 4, greedy, 8 at a time\n"
