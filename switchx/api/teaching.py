"""The teacher of a run that is about to train, or to be planned."""

import dataclasses
from typing import Any

from switchx import data
from switchx.api.starting import named
from switchx.errors import UserError
from switchx.settings import Request, Settings, load
from switchx.training.config import RunConfig
from switchx.training.run_reader import read_start
from switchx.training.teacher import Teacher


def taught(settings: Settings) -> RunConfig:
    """What is trained, with its objective and its teacher: the one it has learnt from before.

    Raises:
      UserError: TEACHER is not there, is no teacher of this model, or is not asked for.
    """
    config, run = settings.objective, settings.run
    if config.name != "distill":
        if config.teacher is not None:
            raise UserError(
                f"TEACHER={config.teacher!r} does nothing with OBJECTIVE={config.name!r}: set "
                "OBJECTIVE='distill', or TEACHER=None."
            )
        return run
    if config.teacher is None:
        raise UserError(
            "OBJECTIVE='distill' needs TEACHER: set it to the directory of a run or of an import."
        )
    teacher = _teacher(settings, config.teacher)
    teacher.check(run.model)
    return dataclasses.replace(run, objective=config.name, teacher=teacher)


def _teacher(settings: Settings, where: str) -> Teacher:
    from switchx import hosts
    from switchx.training.checkpoints.choosing import chosen_step
    from switchx.training.checkpoints.identity import read_identity

    config, setting = settings.objective, f"TEACHER={where!r}"
    before = _before(settings)
    with named(setting):
        path, step = chosen_step(where, config.checkpoint, "TEACHER", "TEACHER_CHECKPOINT")
        if before and before["path"] == where and config.checkpoint in ("newest", "best"):
            # As it began: that run may have saved others since.
            path, step = chosen_step(where, before["step"], "TEACHER", "TEACHER_CHECKPOINT")
        # It may be saving others at this moment: the hosts take the one that the first one found.
        step = int(hosts.announced(str(step)))
        there = load(Request(model_dir=str(path)).of_run())
    try:
        identity, seal = read_identity(path, step)
    except ValueError as error:
        raise UserError(
            f"{setting}: its checkpoint of step {step} is damaged ({error}): name another step "
            "with TEACHER_CHECKPOINT."
        ) from error
    vocabulary = identity.get("vocabulary") or _vocabulary(there)
    return Teacher(config, there.run.model, path, step, seal, vocabulary)


def _vocabulary(there: Settings) -> str | None:
    """What an import's configuration says of its vocabulary, which its checkpoint does not.

    None where that does not lie here.
    """
    try:
        return data.vocabulary_digest(there.data) if data.known_ids(there.data) else None
    except UserError:
        return None


def _before(settings: Settings) -> dict[str, Any] | None:
    """The record of whom the run learns from already; None before its first start.

    A restart before the first save has it from its first start.
    """
    from switchx.training.checkpoints.identity import newest_identity, teacher_in

    saved = newest_identity(settings.model_dir)
    if saved is not None:
        return teacher_in(saved)
    return read_start(settings.model_dir).get("teacher")
