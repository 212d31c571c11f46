"""MLflow, into a store in the run's directory unless MLFLOW_TRACKING_URI names another."""

import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from switchx.writers.figures import of_split
from switchx.writers.writer import Row, RunFacts

_AT_ONCE = 1000  # figures in one request, and a tenth as many settings: MLflow's limits
_LONGEST = 6000  # characters of a setting
_SPLITS = ("train", "validation")  # what is compared to know whether a run can be gone on with
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Mlflow:
    """Writes a run of MLflow; the client alone is needed (mlflow-skinny).

    MLflow forgets no figure of a run. Where the rows of an earlier start, or its settings, are not
    those that this one goes on from, that run is deleted, in MLflow's sense, and another one takes
    its place and all its rows.
    """

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        self._client: Any = None
        self._facts, self._id = RunFacts(), ""
        self._artifacts: str | None = None  # where pictures and texts go; None: the server says

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        self._facts = run
        self._client = self._client or self._connect(Path(run.folder).absolute())
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`switchx.id` = '{run.id}'")
        fit = [one for one in found if self._fits(one, rows)]
        for one in found:
            if one not in fit[:1]:
                self._client.delete_run(one.info.run_id)
        if fit:
            self._id = fit[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._new_run(experiment, rows)
        self._client.log_text(self._id, run.configuration, "config.gin")

    def write(self, row: Row) -> None:
        self._log([row])

    def text(self, step: int, name: str, text: str) -> None:
        self._client.log_text(self._id, text, f"{name}-{step:08}.txt")

    def picture(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image

        self._client.log_image(self._id, Image.open(io.BytesIO(png)), f"{name}.png")

    def close(self, status: str) -> None:
        if self._id:
            self._client.set_terminated(self._id, _STATUS[status])

    def _connect(self, folder: Path) -> Any:
        from mlflow import MlflowClient

        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            return MlflowClient(given)
        folder.mkdir(parents=True, exist_ok=True)
        self._artifacts = (folder / "mlartifacts").as_uri()
        # A database where SQLAlchemy is there, as with the full mlflow; files where it is not.
        if all(map(importlib.util.find_spec, ("sqlalchemy", "alembic"))):
            return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        return MlflowClient((folder / "mlruns").as_uri())

    def _experiment(self) -> str:
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "switchx")
        found = self._client.get_experiment_by_name(name)
        if found and self._artifacts not in (None, found.artifact_location):
            # The run's directory was moved or copied: pictures would go to where it was.
            self._client.rename_experiment(
                found.experiment_id, f"{name}, with pictures in {found.artifact_location}"
            )
            found = None
        return (
            found.experiment_id if found else self._client.create_experiment(name, self._artifacts)
        )

    def _new_run(self, experiment: str, rows: Sequence[Row]) -> str:
        from mlflow.entities import Param

        tags = {"switchx.id": self._facts.id}
        name = os.environ.get("MLFLOW_RUN_NAME", self._facts.name)
        run = self._client.create_run(experiment, tags=tags, run_name=name)
        self._id = run.info.run_id
        params = [Param(name, value) for name, value in self._params().items()]
        for part in _parts(params, _AT_ONCE // 10):
            self._client.log_batch(self._id, params=part)
        self._log(rows)
        return self._id

    def _log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        names = self._facts.layer_names
        figures = [
            Metric(name, value, int(row["time"] * 1000), row["step"])
            for row in rows
            for name, value in of_split(row, names).items()
        ]
        for part in _parts(figures, _AT_ONCE):
            self._client.log_batch(self._id, metrics=part)

    def _params(self) -> dict[str, str]:
        settings = self._facts.hyperparameters.items()
        return {name: str(value)[:_LONGEST] for name, value in settings}

    def _fits(self, run: Any, rows: Sequence[Row]) -> bool:
        """Whether a run has these settings, and of each split these steps and no others."""
        if run.data.params != self._params():
            return False
        for split in _SPLITS:
            history = self._client.get_metric_history(run.info.run_id, f"{split}/loss")
            there = sorted(figure.step for figure in history)
            if there != [row["step"] for row in rows if row["split"] == split]:
                return False
        return True


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


TRACKER = Mlflow
