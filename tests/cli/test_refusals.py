"""What can be known from the run directory and gin is said before anything heavy is loaded."""

import json
import os
import shutil
import subprocess
import sys

from switchx.training.run_directory import locked

PROGRAM = """
import contextlib, io, json, sys, time
from switchx.cli.main import main
import switchx.settings
refusals = []
for argv in json.loads(sys.argv[1]):
    said, began = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(said):
        status = main(argv)
    refusals.append([status, said.getvalue(), time.process_time() - began])
heavy = [name for name in ("tensorflow", "seqio", "matplotlib") if name in sys.modules]
print(json.dumps([refusals, heavy]))
"""


def refusals(cwd, commands):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=cwd,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_before_tensorflow_and_within_seconds(trained, tmp_path):
    run, used = (shutil.copytree(trained.run, tmp_path / name) for name in ("run", "used"))
    cases = {
        "--gin.NUM_EXPERTS=16": "NUM_EXPERTS is 8 there and 16 here",
        "--gin.OPTIMIZER=adamw": "OPTIMIZER='adamw' is not what the checkpoint",
        "--gin.VOCABULARY=python_docs": "vocab_size=384 is less than the 2100 ids",
        "--gin.DATA_SHARDS=2": "DATA_SHARDS=2, but the data of the checkpoint",
        "--gin.TRAIN_STEPS=2": "TRAIN_STEPS=2 lies behind the run",
        "--gin.SEED=1": "SEED=1, but the data of the checkpoint",
        "--gin.PREPARED_DIR=nowhere": "PREPARED_DIR",
        "--profile_steps=4:3": "--profile_steps=4:3 must be FIRST:LAST",
        "--profile_steps=3:5": "--profile_steps=3:5 goes beyond TRAIN_STEPS=4",
        "--profile_steps=1:4": "--profile_steps=1:4 lies before step 4",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 64}": "'targets'",
    }
    short = "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 10}"
    new = {
        ("--gin.ModelConfig.vocab_size=300",): "vocab_size=300 is less than the 359 ids",
        (short, "--gin.DECODER_GROUP_SIZE=10"): "TASK_FEATURE_LENGTHS",
        ("--gin.C4_JSON_TRAIN=/nowhere/x",): "C4_JSON_TRAIN",
    }
    cases = {(flag,): said for flag, said in cases.items()}
    cases |= {(*flags, "--model_dir=new"): said for flags, said in new.items()}
    cases[f"--gin_file={used}/config.gin",] = "is in use by another switchx train"
    common = ["train", f"--gin_file={run}/config.gin"]
    with locked(used):
        found, heavy = refusals(tmp_path, [[*common, *flags] for flags in cases])
    for (status, said, seconds), (flags, part) in zip(found, cases.items(), strict=True):
        assert (status, seconds < 3) == (2, True), (flags, said, seconds)
        assert part in said
    assert not heavy
