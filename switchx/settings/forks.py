"""Whether a run may begin with what another one, of the same settings, has trained already."""

import dataclasses
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.settings.loading import Request, is_saved, load
from switchx.settings.settings import Settings

# What may differ: how long a run goes on, and how it is watched and kept. None of it is in a state.
_SAVING = {"TrainerConfig.checkpoint_period", "TrainerConfig.checkpoint_steps"}
_FREE = {
    *_SAVING,
    "TrainerConfig.train_steps",
    "TrainerConfig.log_period",
    "TrainerConfig.eval_period",
    "TrainerConfig.keep_checkpoints",
    "TrainerConfig.best_score",
    "TrainerConfig.metric_writers",
    "TrainerConfig.reset_data",
    "TrainerConfig.reset_optimizer",
    "OptimizerConfig.decay_share",
    "DataConfig.eval_batch_size",
    "DataConfig.eval_batches",
    "DataConfig.eval_each_task",
    "DataConfig.timeout",
    "DataConfig.cache_dir",
    "DataConfig.prepared_cache_gb",
    "ModelConfig.switch",  # compared by its own fields
}


def check_fork(settings: Settings, source: str | Path, step: int) -> None:
    """Refuses to begin a run with the checkpoint of `step` of another.

    It may where the run alone would have come to the same state, bit by bit: where all settings
    agree but those that do not reach it. Each configuration that the other was started with counts.

    Raises:
      UserError: naming the first setting that does not agree.
    """
    where = f"MODEL_DIR={str(source)!r}"
    folder = storage.as_path(source, "MODEL_DIR")
    names = sorted(filter(is_saved, storage.names_in(folder, "MODEL_DIR")))
    if not names:
        raise UserError(f"{where} holds no config.gin: name the directory of a run.")
    _check_length(settings, step)
    _check_saved(settings, step)
    free = _FREE - _SAVING if settings.run.trainer.on_bad_loss == "skip" else _FREE
    for name in names:
        other = load(Request((str(folder / name),)))
        here, there = (_values(of, free) for of in (settings, other))
        for target in sorted(here.keys() | there.keys()):
            ours, theirs = here.get(target), there.get(target)
            if ours != theirs:
                raise UserError(
                    f"{settings.gin.name_to_set(target)}={ours!r} was {theirs!r} in the run in "
                    f"{where}, whose checkpoint of step {step} is therefore none of this run: set "
                    "that, or train this run from its start."
                )
        _check_length(other, step)


def _values(settings: Settings, free: set[str]) -> dict[str, Any]:
    """The values of all settings but the free ones, by dataclass and field."""
    run = settings.run
    parts = (settings.data, run.model, run.model.switch, run.trainer, run.optimizer, run.mesh)
    values = {
        f"{type(part).__name__}.{field.name}": getattr(part, field.name)
        for part in parts
        if part is not None
        for field in dataclasses.fields(part)
    }
    return {name: value for name, value in values.items() if name not in free}


def _check_length(settings: Settings, step: int) -> None:
    """The learning rates up to a step must be those of any length."""
    if type(step) is not int:
        raise UserError(f"step={step!r} is no step: give a whole number.")
    optimizer, steps = settings.run.optimizer, settings.run.trainer.train_steps
    if optimizer.schedule in ("linear", "cosine"):
        raise UserError(
            f"SCHEDULE={optimizer.schedule!r} depends on TRAIN_STEPS from its first step on, so no "
            "two runs of it share a checkpoint: use 'wsd'."
        )
    last = optimizer.decay_start(steps) if optimizer.schedule == "wsd" else steps
    if step > last:
        raise UserError(
            f"TRAIN_STEPS={steps} comes to its decay or its end at step {last}, before step "
            f"{step}, whose checkpoint is asked for: take one of at most step {last}."
        )


def _check_saved(settings: Settings, step: int) -> None:
    """A rollback goes as far as the run alone would: to a checkpoint that it has itself."""
    trainer = settings.run.trainer
    own = step % trainer.checkpoint_period == 0 or step in trainer.checkpoint_steps
    if trainer.on_bad_loss == "skip" and not own:
        raise UserError(
            f"CHECKPOINT_STEPS={trainer.checkpoint_steps!r} must hold step {step}, whose "
            "checkpoint is asked for, where ON_BAD_LOSS='skip' may go back to it."
        )
