"""trackio, into the run's directory unless the user's environment says otherwise."""

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switchx.writers.figures import loads, of_split
from switchx.writers.writer import Row, RunFacts

_PROJECT = "switchx"
_ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio:
    """Writes a run of trackio to `folder`/trackio, or to where its own variables say.

    Each start deletes what earlier ones left of the run and writes it anew from the rows up to it.
    Where it goes to a server, each start makes a run of its own there.
    """

    def __init__(self) -> None:
        self._trackio: Any = None
        self._run: Any = None
        self._facts, self._trouble = RunFacts(), ""
        self._is_local = not any(map(os.environ.get, _ELSEWHERE))

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        self._import(run.folder)
        self._finish()
        self._facts, name = run, f"{run.name}-{run.id}"
        if self._is_local:
            with contextlib.suppress(ValueError):  # there is no project yet
                for found in self._trackio.Api().runs(_PROJECT):
                    if found.name == name:
                        found.delete()
        elif step:
            name += f"-from-{step}"
        self._run = self._trackio.init(
            _PROJECT,
            name,
            config={**run.hyperparameters, "config.gin": run.configuration},
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        names, split = self._facts.layer_names, row["split"]
        figures: dict[str, Any] = {**of_split(row, names)}
        for name, shares in loads(row, names).items():
            figures[f"{split}/{name}"] = self._trackio.Histogram(shares)
        self._log(figures, row["step"])

    def text(self, step: int, name: str, text: str) -> None:
        self._log({name: self._trackio.Markdown(f"```\n{text}\n```")}, step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image

        self._log({name: self._trackio.Image(Image.open(io.BytesIO(png)))}, step)

    def close(self, status: str) -> None:
        self._finish()
        self._check()

    def _finish(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _log(self, figures: dict[str, Any], step: int) -> None:
        self._run.log(figures, step=step)
        self._check()

    def _import(self, folder: str) -> None:
        """It reads its folder's name when it is imported."""
        if self._trackio is not None:
            return
        if "TRACKIO_DIR" not in os.environ:
            Path(folder).mkdir(parents=True, exist_ok=True)
            os.environ["TRACKIO_DIR"] = str(Path(folder).absolute() / "trackio")
            os.environ.setdefault("TRACKIO_STORAGE_MODE", "sqlite")  # nobody else writes there
        if self._is_local:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would ask for the user's name
        # What it cannot write it only warns of, in a thread of its own.
        warnings.showwarning = self._note  # type: ignore[assignment]
        import trackio

        self._trackio = trackio

    def _note(self, message: Any, category: Any, filename: str, *_: Any) -> None:
        if "trackio" in Path(filename).parts:
            self._trouble = str(message)

    def _check(self) -> None:
        if self._trouble:
            raise RuntimeError(self._trouble)


TRACKER = Trackio
