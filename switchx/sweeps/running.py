"""Runs one point as `switchx train` runs its config.gin, within this process."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from switchx import api, hosts, storage
from switchx.errors import RunError, UserError
from switchx.settings import Request, Settings, load
from switchx.sharding import make_mesh
from switchx.sweeps.folder import Point, SweepFolder
from switchx.sweeps.points import digest
from switchx.sweeps.worker import Outcome
from switchx.training.checkpoints.identity import saved_steps
from switchx.training.run_reader import metric_rows


class Running:
    """A `Runner` of a sweep's points.

    Args:
      token: a word that the hosts of the job have in common (`hosts.joined`).
      begun: is called once a run's directory is this job's, with its path.
      say: shows a line.
    """

    def __init__(
        self,
        folder: SweepFolder,
        token: str,
        begun: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._token, self._begun, self._say = folder, token, begun, say
        self._points = {point.name: point for point in folder.points}
        self._unfit: dict[str, str | None] = {}

    def unfit(self, point: Point) -> str | None:
        """Why the devices of this process cannot run a point; None where they can.

        What else is wrong with it is for its run to say.
        """
        if point.name not in self._unfit:
            self._unfit[point.name] = self._mesh_problem(point)
        return self._unfit[point.name]

    def forkable(self, point: Point) -> bool:
        """Whether it has a checkpoint, or the one it begins with is there."""
        if saved_steps(self._folder.run_directory(point)):
            return True
        trunk = self._trunk(point)
        return trunk is None or point.fork is None or point.fork.step in saved_steps(trunk)

    def __call__(self, point: Point) -> Outcome:
        """Trains it from where it stands.

        Raises:
          UserError, RunError: as `switchx train` does; config.gin is not the sweep's.
        """
        began, directory = time.monotonic(), self._folder.run_directory(point)
        settings = self._settings(point)
        self._begin_at_fork(point, settings)
        before = _seconds(directory, point)
        with api.metric_writers(settings) as writers:
            result, _ = api.train_run(
                settings, self._token, self._at_start(settings), writers=writers
            )
        after = _seconds(directory, point)
        overhead = time.monotonic() - began - (after - before)
        loss = result.validation.get("loss")
        return Outcome(result.stopped_by, result.step, loss, after, max(overhead, 0.0))

    def _at_start(self, settings: Settings) -> Callable[[list[str]], None]:
        def begun(changes: list[str]) -> None:
            self._begun(settings.model_dir)
            for line in changes:
                self._say(line)

        return begun

    def _settings(self, point: Point) -> Settings:
        path = self._folder.config_file(point)
        content = storage.read_if_there(path, "SWEEP_DIR")
        if content is None or digest(content.decode(errors="replace")) != point.config:
            changed = "not what the sweep wrote there: remove the file, "
            raise UserError(
                f"SWEEP_DIR leads to {str(path)!r}, which is "
                f"{'missing: ' if content is None else changed}plan the sweep again, and change "
                "settings in its gin file alone."
            )
        return load(Request(gin_files=(str(path),)))

    def _mesh_problem(self, point: Point) -> str | None:
        try:
            settings = self._settings(point)
        except UserError:
            return None
        try:
            make_mesh(settings.run.mesh)
        except UserError as error:
            return str(error)
        return None

    def _begin_at_fork(self, point: Point, settings: Settings) -> None:
        """With another's checkpoint where there is one; without it the run is the same, longer."""
        trunk = self._trunk(point)
        if point.fork is None or trunk is None:
            return
        if hosts.is_first() and point.fork.step in saved_steps(trunk):
            try:
                if api.fork(settings, trunk, point.fork.step):
                    self._say(f"beginning with step {point.fork.step} of {point.fork.point}")
            except (UserError, RunError) as error:
                self._say(f"training from the start: {error}")
        hosts.barrier("past the beginning of a point")

    def _trunk(self, point: Point) -> Path | None:
        other = self._points.get(point.fork.point) if point.fork else None
        return None if other is None else self._folder.run_directory(other)


def _seconds(directory: Path, point: Point) -> float:
    """Of training, as its metrics tell; without what a fork has of another run."""
    return training_seconds(metric_rows(directory), point.fork.step if point.fork else 0)


def training_seconds(rows: Iterable[Mapping[str, Any]], after: int = 0) -> float:
    """Seconds of the steps behind `after`, without evaluations, saves and starts."""
    seconds, before = 0.0, after
    for row in rows:
        rate = row.get("steps_per_second")
        if row["split"] == "train" and row["step"] > before:
            if isinstance(rate, int | float) and rate > 0:
                seconds += (row["step"] - before) / rate
            before = row["step"]
    return seconds
