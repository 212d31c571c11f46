"""The teacher of a run that is about to train, or to be planned."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from switchx import data
from switchx.api.starting import named
from switchx.errors import UserError
from switchx.settings import Request, Settings, load
from switchx.training.config import RunConfig
from switchx.training.run_reader import read_start
from switchx.training.teacher import TEACHER_CHECKPOINTS, Teacher


def taught(settings: Settings, planned: bool = False) -> RunConfig:
    """What is trained, with its objective and its teacher: the one it has learnt from before.

    Args:
      planned: whether it is only planned, for which written logits need not be there.

    Raises:
      UserError: TEACHER is not there, is no teacher of this model, or is not asked for.
    """
    config, run = settings.objective, settings.run
    if config.name != "distill":
        for macro, value in (("TEACHER", config.teacher), ("TEACHER_LOGITS", config.logits)):
            if value is not None:
                raise UserError(
                    f"{macro}={value!r} does nothing with OBJECTIVE={config.name!r}: set "
                    f"OBJECTIVE='distill', or {macro}=None."
                )
        return run
    if config.logits is not None:
        return _with_logits(settings, config.logits, planned)
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


def read_by(settings: Settings) -> dict[str, Any]:
    """What decides whether a run can read logits, by the names of its settings.

    What it is compared by stands behind what is shown (`switchx.data.streamed.position`).
    """
    config, model = settings.data, settings.run.model
    # Tasks that join late do so at steps, and the examples before these are as many as a batch has.
    batch = {"BATCH_SIZE": config.batch_size} if config.mixture_starts else {}
    return {
        **data.order_settings(config),
        **batch,
        "TEACHER_TOP_K": settings.objective.top_k,
        "ModelConfig.vocab_size": model.vocab_size,
        "ModelConfig.num_decoder_layers": [model.num_decoder_layers, model.encoder_alone],
    }


def check_top_k(top_k: int, vocab_size: int) -> None:
    """Raises UserError where a vocabulary has not as many tokens."""
    if top_k > vocab_size:
        raise UserError(
            f"TEACHER_TOP_K={top_k} is more than ModelConfig.vocab_size={vocab_size}: give at "
            "most that, which is all."
        )


def _with_logits(settings: Settings, name: str, planned: bool) -> RunConfig:
    """A run that reads the logits of this name, and never its teacher."""
    from switchx.data.taught.logit_set import folder_of_set

    config, run = settings.objective, settings.run
    check_top_k(config.top_k, run.model.vocab_size)
    folder_of_set(settings.data, name)
    batch = dataclasses.replace(run.batch, taught=config.top_k if config.share else 0)
    teacher = Teacher(config, None, Path(config.teacher or ""), 0, "")
    if not planned:
        teacher = _writer_of(settings, name)
    return dataclasses.replace(run, objective=config.name, teacher=teacher, batch=batch)


def _writer_of(settings: Settings, name: str) -> Teacher:
    """The teacher that wrote these logits, where they are those that a run asks for."""
    from switchx.data.taught.logit_set import check_same, read_set

    config, wanted = settings.objective, read_by(settings)
    found = read_set(settings.data, name)
    record = found.plan.teacher
    if config.teacher is not None:
        asked = config
        if config.teacher == record["path"] and config.checkpoint in TEACHER_CHECKPOINTS:
            # As they were written: that run may have saved others since.
            asked = dataclasses.replace(config, checkpoint=record["step"])
        given = _teacher(dataclasses.replace(settings, objective=asked), config.teacher)
        wanted["TEACHER"] = [f"{config.teacher} (step {given.step})", given.seal]
    check_same(found.plan, json.loads(json.dumps(wanted)), name)
    needed = settings.run.trainer.train_steps * settings.run.batch.batch_size
    if found.examples < needed:
        raise UserError(
            f"TRAIN_STEPS={settings.run.trainer.train_steps} of BATCH_SIZE="
            f"{settings.run.batch.batch_size} take {needed:,} examples, and TEACHER_LOGITS="
            f"{name!r} has the logits of {found.examples:,}: run `switchx data teach` with these, "
            "which adds to them, or train for fewer steps."
        )
    named = dataclasses.replace(config, teacher=record["path"])
    place = Path(record["path"])
    return Teacher(named, None, place, record["step"], record["seal"], found.plan.vocabulary)
