"""Where a run that is about to train begins: its own checkpoint, another run's, or afresh."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchx import storage
from switchx.errors import UserError
from switchx.settings import Request, Settings, load
from switchx.training.config import CONTINUE, RunConfig
from switchx.training.run_reader import read_start

if TYPE_CHECKING:
    import numpy as np

    from switchx.training.warm_start import WarmStart

_MEASURED_BATCHES = 10  # of a validation split, where no run has recorded how experts are used


@dataclasses.dataclass(frozen=True)
class Beginning:
    """How a run begins.

    Attributes:
      run: what is trained; its `train_steps` is the step at which the run ends.
      warm: the other run that it starts from; None where it starts afresh or goes on.
    """

    run: RunConfig
    warm: "WarmStart | None" = None


def beginning(settings: Settings) -> Beginning:
    """The beginning of a run, chosen once: a restart before the first save begins alike.

    Raises:
      UserError: START_FROM names no run, or one of another model.
    """
    from switchx.training.checkpoints.identity import saved_steps

    if settings.start.from_run is None:
        return Beginning(settings.run)
    check_other(settings.start.from_run, settings.model_dir, "START_FROM")
    record = read_start(settings.model_dir)
    if saved_steps(settings.model_dir):
        _check_begun(settings, record)
        return Beginning(_from_step(settings, record.get("step", 0)))
    warm = _warm_start(settings, record)
    warm.check(settings.run)
    return Beginning(_from_step(settings, warm.first_step), warm)


def check_other(named: str, model_dir: str, setting: str) -> None:
    """Raises UserError where a setting that is to name another run names this one."""
    from switchx.training.checkpoints.choosing import run_and_step

    if run_and_step(_place(named, setting))[0] == _place(model_dir, "MODEL_DIR"):
        raise UserError(
            f"{setting}={named!r} is of MODEL_DIR itself, which goes on from its own checkpoints: "
            f"name another run's directory, or leave {setting} out."
        )


def _place(path: str, setting: str) -> Path:
    found = storage.as_path(path, setting)
    return found if storage.is_remote(found) else found.resolve()


def _check_begun(settings: Settings, record: dict[str, Any]) -> None:
    """Raises UserError where a run that goes on began otherwise than START_FROM says.

    A command that made a run left its source's settings there, START_FROM with them: as it is.
    """
    named, began = settings.start.from_run, str(record.get("path"))
    assert named is not None
    if record.get("from") == "fresh":
        has, way_out = "began with new parameters", "leave START_FROM out"
    elif record.get("from") == "run" and _place(named, "START_FROM") != _place(began, "START_FROM"):
        has = f"began with {began!r}"
        way_out = "set that, which need no longer be there, or leave START_FROM out"
    else:
        return
    raise UserError(
        f"START_FROM={named!r} does nothing: the run in MODEL_DIR={settings.model_dir!r} {has}, "
        f"and goes on from its own checkpoints: {way_out}, or choose another MODEL_DIR."
    )


def _from_step(settings: Settings, first: int) -> RunConfig:
    """TRAIN_STEPS counts the steps of this run, and the trainer its last step."""
    run = settings.run
    if settings.start.step != CONTINUE:
        return run
    last = first + run.trainer.train_steps
    return dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, train_steps=last))


def _warm_start(settings: Settings, record: dict[str, Any]) -> "WarmStart":
    import jax

    from switchx import hosts
    from switchx.training.checkpoints.choosing import chosen_step
    from switchx.training.warm_start import WarmStart

    start = settings.start
    if record.get("path") == start.from_run and "checkpoint" in record:
        # As it began before: that run may have saved others since.
        start = dataclasses.replace(start, checkpoint=record["checkpoint"])
    assert start.from_run is not None
    setting = f"START_FROM={start.from_run!r}"
    with named(setting):
        path, step = chosen_step(start.from_run, start.checkpoint, "START_FROM", "START_CHECKPOINT")
    # It may be saving others at this moment: the hosts take the one that the first one found.
    step = int(hosts.announced(str(step)))
    with named(setting):
        there = load(Request(model_dir=str(path)).of_run())
    warm = WarmStart(settings.start, path, there.run.model, step)
    if jax.process_count() > 1:  # what experts get is looked at on one host
        return warm
    return dataclasses.replace(warm, measure=lambda: _measured(settings, warm))


def _measured(settings: Settings, warm: "WarmStart") -> "dict[str, np.ndarray]":
    """How much the other run's experts are used by this run's validation split, its beginning."""
    from switchx import data
    from switchx.evaluation.losses import opened
    from switchx.evaluation.usage import usage
    from switchx.training.expert_load import by_layer

    own = settings.run
    run = dataclasses.replace(
        own,
        model=warm.model,
        optimizer=dataclasses.replace(own.optimizer, frozen=()),
        objective="pretraining",
        teacher=None,
    )
    with named(f"START_FROM={settings.start.from_run!r}"):
        setup, params, _ = opened(run, str(warm.model_dir), warm.step)
    batches = itertools.islice(data.eval_batches(settings.data), _MEASURED_BATCHES)
    return by_layer({use.name: use.load_E for use in usage(setup, params, batches)})


@contextlib.contextmanager
def named(setting: str) -> Iterator[None]:
    """Within, what is wrong with another run is said of the setting that names it."""
    try:
        yield
    except UserError as error:
        said = str(error)
        raise UserError(said if setting in said else f"{setting}: {said}") from error
