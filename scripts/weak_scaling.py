#!/usr/bin/env python
"""Trains the same tiny model on 1 to 8 CPU devices and in 1 to 4 processes: the losses must agree.

The global batch, the data and the seed are the same; only where things are computed changes. Every
layout trains once, in a directory that is deleted. Devices share this machine's cores, so seconds
per step show what dividing the work costs, not what more chips gain.

    python scripts/weak_scaling.py                 # 7 runs of 20 steps, some minutes
    python scripts/weak_scaling.py --steps 5
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# Processes, devices of each, and the mesh: data, expert, model.
LAYOUTS = [
    (1, 1, (1, 1, 1)),
    (1, 2, (2, 1, 1)),
    (1, 4, (1, 4, 1)),
    (1, 8, (2, 2, 2)),
    (2, 4, (2, 2, 2)),
    (4, 2, (1, 8, 1)),
    (4, 1, (2, 2, 1)),
]
LAUNCHER = Path(__file__).parent / "launch_local.sh"
SETTINGS = {
    "TASK_FEATURE_LENGTHS": "{'inputs': 128, 'targets': 32}",
    "ENCODER_GROUP_SIZE": 256,
    "DECODER_GROUP_SIZE": 64,
    "BATCH_SIZE": 16,
    "DATA_SHARDS": 4,
    "EVAL_STEPS": 1,
    "LOG_PERIOD": 1,
    "WARMUP_STEPS": 100,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    runs = []
    for processes, devices, mesh in LAYOUTS:
        print(f"{processes} x {devices} devices ...", file=sys.stderr, flush=True)
        runs.append(train(processes, devices, mesh, args.steps))
    print(table(runs))


def train(processes: int, devices: int, mesh: tuple[int, int, int], steps: int) -> list[dict]:
    """The rows of metrics of a run's steps."""
    settings = SETTINGS | {"TRAIN_STEPS": steps, "EVAL_PERIOD": steps, "CHECKPOINT_PERIOD": steps}
    settings |= dict(zip(("MESH_DATA", "MESH_EXPERT", "MESH_MODEL"), mesh, strict=True))
    with tempfile.TemporaryDirectory() as directory:
        command = ["train", f"--model_dir={directory}/run"]
        command += [f"--gin.{name}={value}" for name, value in settings.items()]
        switchx = Path(sys.executable).parent / "switchx"
        launch = [LAUNCHER, f"--processes={processes}", f"--cpu_devices={devices}"]
        launch += [f"--switchx={switchx}", "--", *command]
        done = subprocess.run(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(done.stdout)
        lines = (Path(directory) / "run" / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == "train"]


def table(runs: list[list[dict]]) -> str:
    """Each run beside the first."""
    steps = len(runs[0])
    shown = sorted({0, steps // 2, steps - 1})
    lines = [
        "| processes | devices of each | data x expert x model | "
        + " | ".join(f"loss at {runs[0][i]['step']}" for i in shown)
        + " | largest relative difference | s/step |",
        "|" + "---|" * (5 + len(shown)),
    ]
    for (processes, devices, mesh), run in zip(LAYOUTS, runs, strict=True):
        apart = max(
            abs(row["loss"] - first["loss"]) / first["loss"]
            for row, first in zip(run, runs[0], strict=True)
        )
        speeds = sorted(row["steps_per_second"] for row in run)
        losses = [f"{run[i]['loss']:.6f}" for i in shown]
        cells = (processes, devices, " x ".join(map(str, mesh)), *losses, f"{apart:.1e}")
        median = 1 / speeds[len(speeds) // 2]
        lines.append("| " + " | ".join(map(str, cells)) + f" | {median:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
