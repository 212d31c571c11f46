"""What must not go on from the checkpoints in a directory, said before anything is computed."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.training.checkpoints.identity import (
    BIASED,
    NOT_BIASED,
    UNSAID,
    frozen_in,
    identity,
    newest_identity,
    newest_position,
    saved_steps,
    teacher_in,
)
from switchx.training.config import OptimizerConfig, RunConfig
from switchx.training.resets import Resets, asked_for
from switchx.training.run_reader import check_format
from switchx.training.teacher import Teacher


def check_resume(
    run: RunConfig,
    model_dir: str | Path,
    vocabulary: str | None = None,
    check_position: Callable[[bytes], None] = lambda position: None,
) -> Resets:
    """Refuses a run that cannot go on from the newest checkpoint in its directory, if any is there.

    Reads some small things and computes nothing: neither Orbax nor a device is touched.

    Args:
      vocabulary: the fingerprint of the run's vocabulary; None where it is not known yet.
      check_position: raises UserError where a saved position of the data is of other data.

    Returns:
      What of the checkpoints is not to be used.

    Raises:
      UserError: the model, optimizer, vocabulary or data is another one there, or TRAIN_STEPS lies
        behind what is done.
    """
    before, saved = Resets.of(model_dir), newest_identity(model_dir)
    if saved is None:
        return dataclasses.replace(before, asked=asked_for(run.trainer))
    newest, train_steps = saved_steps(model_dir)[-1], run.trainer.train_steps
    why_not = {
        "optimizer": _refusal(compare_state, run.optimizer, model_dir, saved),
        "data": _refusal(check_position, newest_position(model_dir)),
    }
    compare(model_dir, saved, identity(run.model, vocabulary=vocabulary))
    compare_teacher(model_dir, saved, run.teacher)
    differs = {part: refusal is not None for part, refusal in why_not.items()}
    resets = before.after(run.trainer, newest, differs)
    for part, refusal in why_not.items():
        if refusal is not None and not resets.covers(part, newest):
            raise refusal
    if newest > train_steps:
        raise UserError(
            f"TRAIN_STEPS={train_steps} lies behind the run in MODEL_DIR={str(model_dir)!r}, whose "
            f"newest checkpoint is of step {newest}: give at least that, or another MODEL_DIR."
        )
    return resets


def _refusal(check: Callable[..., None], *args: Any) -> UserError | None:
    """What a check says against the last of its arguments; nothing against None."""
    try:
        if args[-1] is not None:
            check(*args)
    except UserError as error:
        return error
    return None


def check_model(config: ModelConfig, model_dir: str | Path, vocabulary: str | None = None) -> None:
    """Refuses to read the parameters of a directory into another model than was trained there.

    Raises:
      UserError: there is no checkpoint, or it is of another model or vocabulary.
    """
    check_format(model_dir)
    if not saved_steps(model_dir):
        raise UserError(
            f"MODEL_DIR={str(model_dir)!r} holds no checkpoint: name the directory of a run that "
            "saved one."
        )
    saved = newest_identity(model_dir)
    if saved is not None:
        compare(model_dir, saved, identity(config, vocabulary=vocabulary))


def compare(model_dir: str | Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UserError, naming the first setting in which two identities differ."""
    where = f"MODEL_DIR={str(model_dir)!r}"
    unsaid = {**UNSAID, BIASED: NOT_BIASED}
    for name in sorted({*saved["model"], *wanted["model"]}):
        there, here = (of["model"].get(name, unsaid.get(name)) for of in (saved, wanted))
        if there != here:
            raise UserError(
                f"{where} holds a checkpoint of another model: {name} is "
                f"{_in_gin(there)!r} there and {_in_gin(here)!r} here: set that, "
                f"{_as_it_was(model_dir)}, or choose another MODEL_DIR."
            )
    if wanted["vocabulary"] and saved["vocabulary"] not in (None, wanted["vocabulary"]):
        raise UserError(
            f"VOCABULARY does not match the checkpoint in {where}: set the one it was trained "
            f"with, {_as_it_was(model_dir)}, or choose another MODEL_DIR."
        )


def _as_it_was(model_dir: str | Path) -> str:
    """How a run in a directory goes on with its own settings."""
    return f"as --gin_file={str(storage.as_path(model_dir) / 'config.gin')!r} does"


def _in_gin(value: Any) -> Any:
    """As a person sets it: JSON has lists where that is a tuple."""
    return tuple(map(_in_gin, value)) if isinstance(value, list) else value


def compare_optimizer(model_dir: str | Path, saved: dict[str, Any], name: str) -> None:
    """Raises UserError where the state in a checkpoint is another optimizer's."""
    if saved["optimizer"] != name:
        raise UserError(
            f"OPTIMIZER={name!r} is not what the checkpoint in MODEL_DIR={str(model_dir)!r} was "
            f"trained with: set {saved['optimizer']!r}, keep the parameters alone with "
            "--gin.RESET_OPTIMIZER=True, or choose another MODEL_DIR."
        )


def compare_state(config: OptimizerConfig, model_dir: str | Path, saved: dict[str, Any]) -> None:
    """Raises UserError where a checkpoint's state is another optimizer's, or of other parameters.

    The optimizer has a state of what is trained alone.
    """
    compare_optimizer(model_dir, saved, config.name)
    there = frozen_in(saved)
    if {*there} != {*config.frozen}:
        raise UserError(
            f"FREEZE={tuple(config.frozen)!r} is not what the checkpoint in "
            f"MODEL_DIR={str(model_dir)!r} was trained with: set {there!r}, keep the parameters "
            "alone with --gin.RESET_OPTIMIZER=True, or choose another MODEL_DIR."
        )


def compare_teacher(
    model_dir: str | Path, saved: Mapping[str, Any], teacher: Teacher | None
) -> None:
    """Raises UserError where what is to be learnt from is another checkpoint than before."""
    there = teacher_in(saved)
    if teacher is None or there is None or there["seal"] == teacher.seal:
        return
    raise UserError(
        f"TEACHER={teacher.config.teacher!r} (step {teacher.step}) is not the checkpoint that the "
        f"run in MODEL_DIR={str(model_dir)!r} learns from, {there['path']!r} of step "
        f"{there['step']}: set that, or choose another MODEL_DIR."
    )


def compare_arrays(
    model_dir: str | Path, saved: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Raises UserError, naming the first array whose type or shape differs.

    Other settings than those of an identity decide about these too.
    """
    there = {name: value.split()[0] for name, value in saved.items()}
    parts = tuple({f"{name.split('/')[0]}/" for name in wanted})  # parameters alone, or all
    for name in sorted({n for n in there if n.startswith(parts)} | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise UserError(
                f"MODEL_DIR={str(model_dir)!r} holds a checkpoint of another model or optimizer: "
                f"{name} is {there.get(name, 'missing')} there and {wanted.get(name, 'missing')} "
                "here: set what it was trained with, or choose another MODEL_DIR."
            )
