"""Weights & Biases, offline unless the user's environment says otherwise."""

import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.writers.figures import loads, of_split
from switchx.writers.writer import Row, RunFacts

_BINS = 32


class Wandb:
    """Writes a run of W&B to `folder`/wandb, or to its server with WANDB_MODE=online.

    W&B forgets nothing and takes steps in order alone. Offline that is no matter: each start
    leaves one folder, written anew from the rows up to it. Online, the server leaves out a step
    that it has, so that what was written of it first stays.
    """

    def __init__(self) -> None:
        os.environ["WANDB_MODE"] = os.environ.get("WANDB_MODE") or "offline"
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        self._run: Any = None
        self._facts = RunFacts()

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        if self._run is not None:
            self._run.finish()
        self._facts, given = run, os.environ
        folder = given.get("WANDB_DIR") or run.folder
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=given.get("WANDB_PROJECT", "switchx"),
            id=given.get("WANDB_RUN_ID", run.id),
            name=given.get("WANDB_NAME", run.name),
            dir=folder,
            config=dict(run.hyperparameters),
            resume=None if self._is_offline() else "allow",
            settings=self._wandb.Settings(silent=True, console="off", x_stats_pid=os.getppid()),
        )
        storage.write_whole(Path(self._run.dir) / "config.gin", run.configuration)
        if self._is_offline():
            self._remove_earlier(Path(folder), Path(self._run.dir).parent)
            for row in rows:
                self.write(row)

    def write(self, row: Row) -> None:
        names, split = self._facts.layer_names, row["split"]
        figures: dict[str, Any] = {**of_split(row, names)}
        for name, shares in loads(row, names).items():
            histogram = np.histogram(shares, bins=_BINS)
            figures[f"{split}/{name}"] = self._wandb.Histogram(np_histogram=histogram)
        self._log(figures, row["step"])

    def text(self, step: int, name: str, text: str) -> None:
        shown = f"<pre>{html.escape(text)}</pre>"
        self._log({name: self._wandb.Html(shown, inject=False)}, step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image

        self._log({name: self._wandb.Image(Image.open(io.BytesIO(png)))}, step)

    def close(self, status: str) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(status == "failed"))

    def _log(self, figures: dict[str, Any], step: int) -> None:
        self._run.log(figures, step=step)

    def _is_offline(self) -> bool:
        return os.environ["WANDB_MODE"] in ("offline", "dryrun")  # two names of one

    def _remove_earlier(self, folder: Path, current: Path) -> None:
        """What earlier starts of this run left, which the new folder holds too."""
        for found in (folder / "wandb").glob(f"offline-run-*-{self._run.id}"):
            if found != current:
                storage.remove(found)


TRACKER = Wandb
