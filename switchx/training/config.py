"""What a training run is: the dataclasses that gin fills and the trainer reads."""

import dataclasses
from collections.abc import Callable
from typing import Any

from switchx.checks import above_zero, at_least, below_one, from_zero, is_whole, one_of
from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.sharding import MeshConfig
from switchx.training.teacher import Teacher
from switchx.writers import check_names

OPTIMIZERS: dict[str, Callable[..., Any]] = {}  # filled by `switchx.training.optimizers`
SCHEDULES = ("inverse_sqrt", "constant", "linear", "cosine", "wsd")
ON_BAD_LOSS = ("stop", "skip")
START_CHECKPOINTS = ("newest", "best")
START_CHANGES = ("experts", "layers", "vocabulary", "sizes")
START_FEED_FORWARDS = ("fresh", "mean", "sum", "most_used", "top_k", "low_rank")
CONTINUE = "continue"
MOST_STEPS = 2**31 - 2  # they are counted in int32


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """Sequences per step over all devices, tokens per input and per target.

    An encoder alone has its targets at the places of its inputs, and a target_length of 0.
    The rows come in `shards` equal parts (macro DATA_SHARDS), each read by a host that needs it.
    Where they are `packed` (macro PACK), a row holds several examples, and arrays that say which.
    With `taught` each target comes with the logits of so many tokens that a teacher wrote
    (macro TEACHER_TOP_K).
    """

    batch_size: int
    input_length: int
    target_length: int
    shards: int = 1
    packed: bool = False
    taught: int = 0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates.

    Attributes:
      name: "adafactor" as T5 uses it (parameter scaling, factored second moment with decay
        1 - t^-0.8, no first moment, update clipped to RMS 1), "adamw", "muon" (for the layers'
        matrices, AdamW for the rest), or one that was registered with
        `switchx.training.optimizer` (macro OPTIMIZER).
      schedule: "inverse_sqrt" is learning_rate / sqrt(max(step, warmup_steps)), T5's; the
        others rise linearly over warmup_steps to learning_rate, then stay ("constant"),
        fall to 0 at the last step ("linear", "cosine"), or stay and fall to 0 over the last
        decay_share of the steps ("wsd": warm-up, stable, decay) (macro SCHEDULE).
      learning_rate: the schedule's factor; relative to each parameter's RMS under adafactor
        (macro LEARNING_RATE).
      warmup_steps: macro WARMUP_STEPS.
      decay_share: of TRAIN_STEPS, over which "wsd" decays (macro DECAY_SHARE).
      weight_decay: the share that a step takes off each parameter, beside its update: times the
        learning rate under adamw and muon, as it is under adafactor, as T5X has it (macro
        WEIGHT_DECAY).
      beta1, beta2: AdamW's moments.
      momentum: adafactor's, the share of the last steps' average in the next; T5 has none. An
        expert sees few of a batch's tokens: without one, its steps are as long as they are noisy.
      clip_global_norm: gradients are scaled down to this global norm; None leaves them (macro
        CLIP_GLOBAL_NORM).
      clip_by_unit: before that, the gradient of each output of each matrix is scaled down to this
        share of that output's own weights, each layer's and expert's apart (adaptive gradient
        clipping, Brock et al. 2021); None leaves them (macro CLIP_BY_UNIT).
      frozen: parameters that stay as they are, groups of `switchx.model.groups.GROUPS` or patterns
        of names, as "encoder/*" (macro FREEZE).
    """

    name: str = "adafactor"
    schedule: str = "inverse_sqrt"
    learning_rate: float = 1.0
    warmup_steps: int = 10_000
    decay_share: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    momentum: float = 0.0
    clip_global_norm: float | None = None
    clip_by_unit: float | None = None
    frozen: tuple | list = ()

    def __post_init__(self) -> None:
        one_of("OPTIMIZER", self.name, sorted(OPTIMIZERS))
        one_of("SCHEDULE", self.schedule, SCHEDULES)
        if not 1 <= self.warmup_steps <= MOST_STEPS:
            raise UserError(f"WARMUP_STEPS={self.warmup_steps} must be from 1 to {MOST_STEPS}.")
        if not 0 < self.decay_share < 1:
            raise UserError(f"DECAY_SHARE={self.decay_share} must be above 0 and below 1.")
        above_zero("LEARNING_RATE", self.learning_rate)
        below_one("WEIGHT_DECAY", self.weight_decay)
        for name in ("momentum", "beta1", "beta2"):
            below_one(f"OptimizerConfig.{name}", getattr(self, name))
        above_zero("CLIP_GLOBAL_NORM", self.clip_global_norm, or_none=True)
        above_zero("CLIP_BY_UNIT", self.clip_by_unit, or_none=True)
        if not all(isinstance(each, str) for each in self.frozen):
            raise UserError(
                f"FREEZE={self.frozen!r} must be groups of parameters or patterns of their names, "
                "as in ('experts', '*/router/*')."
            )

    def decay_start(self, train_steps: int) -> int:
        """The step from which "wsd" decays.

        A run's state after so many updates is that of any longer run of the same settings.
        """
        return train_steps - max(1, round(self.decay_share * train_steps))


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How long, how carefully and how often.

    Attributes:
      train_steps: the run ends after this step (macro TRAIN_STEPS).
      seed: of initialization, dropout, jitter and data order (macro SEED).
      microbatches: the batch is computed in this many parts, one after the other; changes
        memory, not results (macro MICROBATCHES).
      z_loss: weight of log(Z)^2 of the output logits.
      label_smoothing: share of the target spread over the vocabulary (macro LABEL_SMOOTHING).
      log_period: steps between rows of metrics (macro LOG_PERIOD).
      eval_period: steps between evaluations (macro EVAL_PERIOD).
      checkpoint_period: steps between checkpoints (macro CHECKPOINT_PERIOD).
      checkpoint_steps: more steps to save at, whose checkpoints are kept for good
        (macro CHECKPOINT_STEPS).
      keep_checkpoints: the newest so many are kept, and the best (macro KEEP_CHECKPOINTS).
      best_score: what the best is told by: "loss", the lowest on the validation split, or the
        highest of a task's own scores, "task/metric", or of their "average", "glue_average" or
        "super_glue_average" (macro BEST_SCORE).
      on_bad_loss: what to do where a step's loss or gradient is not finite, or its loss is a
        spike: "stop", or "skip", which goes back to the last checkpoint, or to the start, and on
        with the data behind the bad batch, as PaLM did (section 5.1) (macro ON_BAD_LOSS).
      loss_spike: a loss so many nats above the mean of the 100 steps before it is bad; None
        looks for no spikes (macro LOSS_SPIKE).
      max_rollbacks: after so many, one more bad loss stops the process (macro MAX_ROLLBACKS).
      metric_writers: what gets the rows of metrics beside metrics.jsonl, names of
        `switchx.writers.WRITERS` (macro METRIC_WRITERS).
      reset_data: a resume begins the data anew, once (macro RESET_DATA).
      reset_optimizer: a resume keeps the parameters and begins the optimizer's state anew, once
        (macro RESET_OPTIMIZER).
    """

    train_steps: int
    seed: int = 0
    microbatches: int = 1
    z_loss: float = 1e-4
    label_smoothing: float = 0.0
    log_period: int = 100
    eval_period: int = 1000
    checkpoint_period: int = 1000
    checkpoint_steps: tuple | list = ()
    keep_checkpoints: int = 3
    best_score: str = "loss"
    on_bad_loss: str = "stop"
    loss_spike: float | None = None
    max_rollbacks: int = 3
    metric_writers: tuple | list = ("tensorboard",)
    reset_data: bool = False
    reset_optimizer: bool = False

    def __post_init__(self) -> None:
        for name in (
            "train_steps",
            "microbatches",
            "log_period",
            "eval_period",
            "checkpoint_period",
            "keep_checkpoints",
            "max_rollbacks",
        ):
            at_least(name.upper(), getattr(self, name), 1)
        if self.train_steps > MOST_STEPS:
            raise UserError(f"TRAIN_STEPS={self.train_steps} must be at most {MOST_STEPS}.")
        if not all(is_whole(step) and step >= 1 for step in self.checkpoint_steps):
            raise UserError(
                f"CHECKPOINT_STEPS={self.checkpoint_steps!r} must be whole numbers of at least "
                "1, as in (500, 2000)."
            )
        if not isinstance(self.best_score, str) or not self.best_score:
            raise UserError(
                f"BEST_SCORE={self.best_score!r} must be 'loss', 'average', or a task's own score, "
                "as in 'squad_v010_allanswers/f1'."
            )
        below_one("LABEL_SMOOTHING", self.label_smoothing)
        one_of("ON_BAD_LOSS", self.on_bad_loss, ON_BAD_LOSS)
        from_zero("Z_LOSS", self.z_loss)
        above_zero("LOSS_SPIKE", self.loss_spike, or_none=True)
        check_names(self.metric_writers)


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Where the first state comes from, as long as the run has no checkpoint of its own.

    Attributes:
      from_run: the directory of a run, or of one of its checkpoints; None makes new parameters
        from the seed (macro START_FROM).
      checkpoint: of that run: "newest", "best" by validation loss, or a step
        (macro START_CHECKPOINT).
      step: at which this run begins: 0, or "continue" for that of the checkpoint, with which the
        schedule goes on; TRAIN_STEPS counts from there (macro START_STEP).
      optimizer: whether the optimizer's state is taken too (macro START_OPTIMIZER).
      changes: in what the two models may differ, of START_CHANGES: more "experts", each new one
        the copy of one there; the number of "layers", each the copy of the one at its relative
        depth; a longer "vocabulary", whose new rows are the mean of those there; any "sizes",
        where what no other rule fits is new, layers going by their number (macro START_CHANGES).
      feed_forwards: what a dense feed-forward begins with in a layer that has experts there: of
        START_FEED_FORWARDS, see `switchx.training.merging`; None refuses such a layer
        (macro START_FEED_FORWARDS).
      experts: numbers of those that are kept, the same in every layer; None keeps all
        (macro START_EXPERTS).
      noise: added to what belongs to a copied expert, in parts of its parameter's RMS: copies
        without it would all get the same tokens (macro START_NOISE).
      fresh: parameters that are new although the run has them, or because it has none, by
        patterns of their names, as "*/router/*" (macro START_FRESH).
    """

    from_run: str | None = None
    checkpoint: str | int = "newest"
    step: str | int = 0
    optimizer: bool = False
    changes: tuple | list = ()
    feed_forwards: str | None = None
    experts: tuple | list | None = None
    noise: float = 0.01
    fresh: tuple | list = ()

    def __post_init__(self) -> None:
        if isinstance(self.checkpoint, str) and self.checkpoint not in START_CHECKPOINTS:
            raise UserError(
                f"START_CHECKPOINT={self.checkpoint!r} is not one of "
                f"{', '.join(START_CHECKPOINTS)}, nor the number of a step."
            )
        if self.step not in (0, CONTINUE):
            raise UserError(f"START_STEP={self.step!r} must be 0 or {CONTINUE!r}.")
        if not all(isinstance(each, str) for each in self.fresh):
            raise UserError(
                f"START_FRESH={self.fresh!r} must be patterns of parameters' names, as in "
                "('*/router/*',)."
            )
        if not all(type(each) is int for each in self.experts or ()):
            raise UserError(
                f"START_EXPERTS={self.experts!r} must be numbers of experts, as in (0, 3), or None."
            )
        for name in self.changes:
            if name not in START_CHANGES:
                raise UserError(
                    f"START_CHANGES={self.changes!r}: {name!r} is not one of "
                    f"{', '.join(START_CHANGES)}."
                )
        if self.feed_forwards not in (None, *START_FEED_FORWARDS):
            raise UserError(
                f"START_FEED_FORWARDS={self.feed_forwards!r} is not one of "
                f"{', '.join(START_FEED_FORWARDS)}, nor None."
            )
        from_zero("START_NOISE", self.noise)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything the compiled steps depend on.

    Attributes:
      batch, eval_batch: a training batch's shape and an evaluation's.
      objective: what is minimised, a name of `switchx.training.objectives.OBJECTIVES`.
      teacher: whom "distill" learns from.
    """

    model: ModelConfig
    batch: BatchShape
    eval_batch: BatchShape
    trainer: TrainerConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    objective: str = "pretraining"
    teacher: Teacher | None = None

    def program(self) -> "RunConfig":
        """The same for all runs that have their compiled steps in common.

        The seed, the learning rate and the lengths are arguments of those (`state.Numbers`); what
        is done between steps, and how often, they do not know.
        """
        trainer = dataclasses.replace(self.trainer, **_BESIDE_THE_STEP)
        # A list would not do: programs are kept by their configurations.
        optimizer = dataclasses.replace(self.optimizer, frozen=tuple(self.optimizer.frozen))
        if optimizer.name in _OF_THEIR_SCHEDULE:
            optimizer = dataclasses.replace(
                optimizer, learning_rate=1.0, warmup_steps=1, decay_share=0.1
            )
        teacher = self.teacher and self.teacher.program()
        return dataclasses.replace(self, trainer=trainer, optimizer=optimizer, teacher=teacher)


_BESIDE_THE_STEP: dict[str, Any] = {
    "train_steps": 1,
    "seed": 0,
    "log_period": 1,
    "eval_period": 1,
    "checkpoint_period": 1,
    "checkpoint_steps": (),
    "keep_checkpoints": 1,
    "best_score": "loss",
    "on_bad_loss": "stop",
    "loss_spike": None,
    "max_rollbacks": 1,
    "metric_writers": (),
    "reset_data": False,
    "reset_optimizer": False,
}
_OF_THEIR_SCHEDULE = (
    "adafactor",
    "adamw",
    "muon",
)  # another may read LEARNING_RATE from its configuration
