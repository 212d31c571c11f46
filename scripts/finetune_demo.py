#!/usr/bin/env python
"""Tunes the quickstart's model to a task, and trains the same model on it from scratch.

Both are runs of configs/runs/finetune_demo.gin, below --out; one that is finished is not repeated.
At the end a table and a picture of the task's score in both.

    python scripts/finetune_demo.py
    python scripts/finetune_demo.py --start=runs/mine --out=runs/tuned -- --gin.TRAIN_STEPS=1000
"""

import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path

from switchx.reports.pictures import (
    REFERENCE,
    TRAIN,
    VALIDATION,
    curve,
    new_figure,
    plain_axes,
    save,
)
from switchx.terminal import table
from switchx.training.run_reader import metric_rows

TASK, SCORE = "python_docs_prepositions", "score/accuracy"
TUNED, SCRATCH = "from the quickstart", "from scratch"
FOLDERS = {TUNED: "tuned", SCRATCH: "scratch"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", default="runs/quickstart", help="the run to start from")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune_demo"))
    parser.add_argument("flags", nargs="*", help="more flags of `switchx train`, for both runs")
    args = parser.parse_args()
    for name, start in ((TUNED, args.start), (SCRATCH, None)):
        print(f"\n---- {name} ----", flush=True)
        status = train(args.out / FOLDERS[name], start, args.flags)
        if status:
            return status
    show(args.out)
    return 0


def train(directory: Path, start: str | None, flags: list[str]) -> int:
    """One run, as `switchx train` does it; its exit status."""
    given = ["--gin_file=configs/runs/finetune_demo.gin", f"--gin.START_FROM={start}"]
    command = [sys.executable, "-m", "switchx.cli.main", "train", *given, *flags]
    return subprocess.run([*command, f"--model_dir={directory}"]).returncode


def show(out: Path) -> None:
    """Prints the table and draws the picture, from what the runs have written."""
    curves = {
        name: curve(metric_rows(out / folder), f"validation/{TASK}", SCORE)
        for name, folder in FOLDERS.items()
    }
    word, share = commonest(out / FOLDERS[TUNED])
    columns = [dict(zip(*found, strict=True)) for found in curves.values()]
    rows = [
        (f"{step:.0f}", *(f"{of[step]:.1f}%" for of in columns))
        for step in sorted(columns[0].keys() & columns[1].keys())
    ]
    print(f"\n{TASK}: right answers on held-out documentation\n")
    print("\n".join(table([("step", *curves), *rows], numbers=(0,))))
    print(f"\nalways {word!r}: {share:.1f}%\npicture: {draw(curves, word, share, out)}")


def commonest(directory: Path) -> tuple[str, float]:
    """The commonest right answer, and how often it is right, in percent."""
    newest = max((directory / "predictions" / TASK).glob("*.jsonl"), key=lambda p: int(p.stem))
    targets = [json.loads(line)["target"] for line in newest.read_text().splitlines()]
    [(word, count)] = collections.Counter(targets).most_common(1)
    return word, 100 * count / len(targets)


def draw(curves: dict, word: str, share: float, out: Path) -> Path:
    """Both curves, and what the commonest answer alone would give."""
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    for (name, (steps, values)), colour in zip(curves.items(), (VALIDATION, TRAIN), strict=True):
        style = {"color": colour, "linewidth": 1.8, "marker": "o", "markersize": 4}
        axes.plot(steps, values, label=f"{name}, {values[-1]:.1f} %", **style)
    label = f"always {word!r}, {share:.1f} %"
    axes.axhline(share, color=REFERENCE, linestyle="--", linewidth=1.2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("right answers (percent)")
    axes.set_title("which preposition was cut out", loc="left", fontsize=12)
    plain_axes(axes)
    axes.legend(frameon=False)
    return save(figure, out / "accuracy.png")


if __name__ == "__main__":
    sys.exit(main())
