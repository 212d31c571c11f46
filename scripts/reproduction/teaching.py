"""The runs of Tables 6 and 7, each in a directory of its own, trained as `switchx train` would."""

from pathlib import Path
from typing import Any

import switchx
from reproduction.lessons import GIN_FILE, LESSONS, directory
from switchx import data


def configured(runs: Path, name: str, seed: int) -> switchx.Settings:
    """A run's settings; `runs` is the folder that all of them are in."""
    settings = LESSONS[name].set(runs, seed)
    settings["PREPARED_DIR"] = str(runs / "prepared")
    return switchx.configure([str(GIN_FILE)], runs / directory(name, seed), **settings)


def prepare(runs: Path) -> None:
    """Prepares the text that all learn from, once."""
    data.prepare(configured(runs, "dense", 0).data)


def train(runs: Path, name: str, seed: int) -> dict[str, Any]:
    """Trains a run, or the rest of it; a teacher must have been before its students.

    Returns:
      its losses on the held-out batches, nats per token, and what else results.jsonl keeps.
    """
    run = switchx.train(configured(runs, name, seed))
    losses = [(row["step"], row["loss"]) for row in run.metrics if row["split"] == "validation"]
    return {
        "seed": seed,
        "loss": losses[-1][1],
        "losses": losses,
        "parameters": run.model.num_params,
        "config": run.config.resolved,
    }
