"""What takes several of T5X's parameters to say of a run: its steps, data, rates and loss."""

import math
import re
import shlex

from switchx.settings.gin_syntax import REQUIRED, Macro
from switchx.settings.t5x.reading import Reading, are_numbers

_TRAIN = "train.train"
_CHECKPOINT = re.compile(r"(?:.*/)?checkpoint_(\d+)/?")


def apply(reading: Reading) -> None:
    """Sets what they come to."""
    _steps_and_start(reading)
    _seeds(reading)
    _evaluation(reading)
    _checkpoints(reading)
    _schedule(reading)
    _loss(reading)


def _steps_and_start(reading: Reading) -> None:
    """TRAIN_STEPS counts a run's own steps, T5X's all that the model was ever trained for."""
    total, relative = reading.use(f"{_TRAIN}.total_steps"), reading.use(f"{_TRAIN}.relative_steps")
    began = _start(reading)
    if relative is not None and relative.value:
        reading.put("TRAIN_STEPS", relative.value, relative)
        return
    if total is None:
        return
    if began is None or not isinstance(total.value, int):
        reading.put("TRAIN_STEPS", total.value, total)
        return
    if began < 0:
        reading.refuse(
            total,
            "T5X counts the steps of pretraining too, which are not known here: say this run's own "
            "with --gin.train_script.train.relative_steps=N",
        )
    elif total.value <= began:
        reading.refuse(
            total, f"T5X counts the steps before the checkpoint too, {began}: nothing is left"
        )
    else:
        reading.note(
            total,
            f"the {began} steps before the checkpoint count there, and not here: "
            f"TRAIN_STEPS={total.value - began}",
        )
        reading.put("TRAIN_STEPS", total.value - began, total)


def _start(reading: Reading) -> int | None:
    """Sets START_...; returns the steps before, None without any, -1 where they are not known."""
    path, mode = (reading.use(f"RestoreCheckpointConfig.{name}") for name in ("path", "mode"))
    if path is None or path.value in (None, "", [], ()):
        return None
    named = path.value
    if isinstance(named, list | tuple) and len(named) == 1:
        named = named[0]
    if isinstance(named, Macro) and named != REQUIRED:
        return None  # refused already: it is not set
    if named != REQUIRED and not isinstance(named, str):
        reading.refuse(path, "a run starts from one checkpoint", "START_FROM")
        named = ""
    if mode is not None and mode.value not in ("specific", "latest"):
        reading.refuse(mode, "a run starts from one checkpoint: 'specific' or 'latest'")
    step = _CHECKPOINT.fullmatch(named) if isinstance(named, str) else None
    if step:
        chosen = reading.chosen.get("MIXTURE_OR_TASK_NAME")
        task = chosen.value if chosen and chosen.value != REQUIRED else "NAME"
        words = reading.chosen.get("VOCABULARY")
        task += f" --gin.VOCABULARY={words.value}" if words else ""
        reading.refuse(
            path,
            f"T5X wrote it: bring it in once with `switchx import --from=t5x "
            f"--input={shlex.quote(step[0])} "
            f"--model_dir=runs/imported --gin.MIXTURE_OR_TASK_NAME={task} --gin.TRAIN_STEPS=1`, "
            "and add --gin.START_FROM=runs/imported",
            "START_FROM",
        )
    reading.put("START_FROM", named, path)
    # T5X goes on at the checkpoint's step, with its optimizer's state.
    reading.put("START_STEP", "continue", path)
    reading.put("START_OPTIMIZER", True, path)
    return int(step[1]) if step else -1


def _seeds(reading: Reading) -> None:
    """None is drawn from the clock there; there are no such runs here."""
    run, rows = reading.use(f"{_TRAIN}.random_seed"), None
    rows = reading.use("DatasetConfig.seed", "train_dataset_cfg")
    given = [use for use in (run, rows) if use is not None]
    for use in given:
        if use.value is None:
            reading.note(use, "a seed from the clock there, SEED here: each run can be repeated")
    if run is not None and run.value is not None:
        reading.put("SEED", run.value, run)
    if rows is not None and rows.value is not None:
        alone = run is None or run.value is None or run.value == rows.value
        reading.put("SEED" if alone else "DataConfig.seed", rows.value, rows)


def _evaluation(reading: Reading) -> None:
    """What is evaluated, and how answers are found."""
    period = reading.use(f"{_TRAIN}.stats_period")
    if period is not None and period.value:
        reading.put("LOG_PERIOD", period.value, period)
    train, watched = "train_dataset_cfg", "train_eval_dataset_cfg"
    rows = reading.use("DatasetConfig.batch_size", watched)
    if rows is not None and rows.value != reading.value("DatasetConfig.batch_size", train):
        reading.put("EVAL_BATCH_SIZE", rows.value, rows)
    for name, what in {
        "mixture_or_task_name": "the task that is trained is evaluated",
        "task_feature_lengths": "evaluation has the lengths of training",
        "pack": "evaluation packs as training does",
    }.items():
        other = reading.use(f"DatasetConfig.{name}", watched)
        trained = reading.value(f"DatasetConfig.{name}", train)
        if other and other.value not in (trained, REQUIRED):
            reading.note(other, what)
    if reading.use(f"{_TRAIN}.eval_period") is not None and not reading.built(
        "DatasetConfig", watched
    ):
        reading.note(None, "no train_eval_dataset_cfg: the loss is measured all the same")
    scored = reading.use(f"{_TRAIN}.infer_eval_dataset_cfg")
    if scored is not None:
        reading.put("EVAL_SCORES", scored.value is not None, scored)
    beams = reading.use("predict_batch_with_aux.num_decodes")
    if scored is not None and scored.value is not None and beams and beams.value not in (None, 1):
        reading.put("DECODING_METHOD", "beam", beams)
        reading.put("NUM_BEAMS", beams.value, beams)


def _checkpoints(reading: Reading) -> None:
    """All are kept by `keep = None`: as many as there will be."""
    save = reading.use("CheckpointConfig.save")
    if save is not None and save.value is None:
        reading.note(save, "checkpoints are written all the same, every CHECKPOINT_PERIOD steps")
    period, keep = (reading.use(f"SaveCheckpointConfig.{name}") for name in ("period", "keep"))
    if period is not None and period.value is not None:
        reading.put("CHECKPOINT_PERIOD", period.value, period)
    steps = reading.use("SaveCheckpointConfig.checkpoint_steps")
    if steps is not None and steps.value:
        listed = isinstance(steps.value, list)
        reading.put("CHECKPOINT_STEPS", tuple(steps.value) if listed else steps.value, steps)
    if keep is None:
        return
    if keep.value is not None:
        reading.put("KEEP_CHECKPOINTS", keep.value, keep)
        return
    total = reading.chosen.get("TRAIN_STEPS")
    every = period.value if period is not None else None
    if total is not None and all(isinstance(n, int) and n > 0 for n in (total.value, every)):
        reading.put("KEEP_CHECKPOINTS", max(1, math.ceil(total.value / every)), keep)


def _schedule(reading: Reading) -> None:
    """SCHEDULE, LEARNING_RATE and WARMUP_STEPS of T5X's factors or of optax's schedules."""
    if reading.built("optax.adamw"):
        _optax_schedule(reading)
        return
    name = "create_learning_rate_scheduler"
    factors = reading.use(f"{name}.factors")
    if factors is None:
        fn = reading.use("Trainer.learning_rate_fn") or reading.use("MoeTrainer.learning_rate_fn")
        if fn is not None:
            reading.refuse(fn, f"rates are those of utils.{name}", "SCHEDULE")
        return
    rate, warmup, offset = (
        reading.use(f"{name}.{part}")
        for part in ("base_learning_rate", "warmup_steps", "step_offset")
    )
    assert rate is not None
    assert warmup is not None
    assert offset is not None
    parts = sorted(part.strip() for part in str(factors.value).split("*"))
    known = {
        ("constant",): "constant",
        ("constant", "linear_warmup"): "constant",
        ("constant", "rsqrt_decay"): "inverse_sqrt",
        ("constant", "rsqrt_normalized_decay"): "inverse_sqrt",
    }
    found = known.get(tuple(parts))
    if found is None:
        reading.refuse(
            factors,
            "SCHEDULE has 'constant * rsqrt_decay' ('inverse_sqrt'), 'constant' and "
            "'constant * linear_warmup' ('constant'); beside them 'linear', 'cosine' and 'wsd'",
            "SCHEDULE",
        )
        return
    if offset.value and parts != ["constant"]:
        reading.refuse(offset, "rates follow the run's step: see START_STEP", "SCHEDULE")
    reading.put("SCHEDULE", found, factors)
    value = rate.value
    if "rsqrt_normalized_decay" in parts and are_numbers(value, warmup.value):
        value = value * max(warmup.value, 0) ** 0.5
    reading.put("LEARNING_RATE", value, rate)
    rises = parts != ["constant"]
    reading.put("WARMUP_STEPS", warmup.value if rises else 1, warmup if rises else factors)
    if "linear_warmup" in parts:
        reading.note(factors, "the rate rises from the first update on, one step sooner")


def _optax_schedule(reading: Reading) -> None:
    rate = reading.use("adamw.learning_rate")
    if rate is None:
        reading.refuse(None, "optax.adamw.learning_rate is not set", "LEARNING_RATE")
    elif reading.built("optax.warmup_cosine_decay_schedule"):
        last = reading.use("warmup_cosine_decay_schedule.decay_steps")
        if last is not None and last.value != reading.value(f"{_TRAIN}.total_steps"):
            reading.refuse(last, "SCHEDULE='cosine' falls until TRAIN_STEPS", "SCHEDULE")
        reading.put("SCHEDULE", "cosine", rate)
    elif isinstance(rate.value, int | float) or rate.value == REQUIRED:
        reading.put("SCHEDULE", "constant", rate)
        reading.put("LEARNING_RATE", rate.value, rate)
        reading.put("WARMUP_STEPS", 1, rate)
    else:
        reading.refuse(rate, "rates are numbers, or warmup_cosine_decay_schedule", "SCHEDULE")


def _loss(reading: Reading) -> None:
    """T5X sums the loss over target tokens and divides by a number; here it is their mean."""
    factor = reading.use("Model.loss_normalizing_factor")
    if factor is None or str(factor.value) in ("NUM_REAL_TARGET_TOKENS", str(REQUIRED)):
        return
    mean = "the loss is the mean over target tokens"
    if str(factor.value) == "AVERAGE_PER_SEQUENCE":
        reading.refuse(factor, f"{mean}, of whichever sequence")
    elif reading.built("MoeLayer"):
        reading.refuse(
            factor,
            f"{mean}, beside which the routers' losses count: set "
            "LOSS_NORMALIZING_FACTOR='NUM_REAL_TARGET_TOKENS'",
        )
    elif _clips(reading):
        reading.refuse(factor, f"{mean}, and clipping depends on its size", "CLIP_GLOBAL_NORM")
    elif factor.binding is not None:
        reading.note(factor, f"{mean}, and the optimizer's steps do not depend on its size")


def _clips(reading: Reading) -> bool:
    chosen = reading.chosen.get("CLIP_GLOBAL_NORM")
    return chosen is not None and chosen.value is not None
