"""Whom a run learns from beside its targets, and how: OBJECTIVE='distill'."""

import dataclasses
from pathlib import Path
from typing import TypeGuard

from switchx.checks import above_zero, is_number, is_whole, one_of
from switchx.errors import UserError
from switchx.model import ModelConfig

OBJECTIVE_NAMES = ("pretraining", "distill")
TEACHER_CHECKPOINTS = ("newest", "best")
TEACHER_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, as gin says it; the teacher is looked for when a run begins.

    Attributes:
      name: "pretraining", or "distill": (1 - share) of its loss and share of
        temperature^2 times the cross-entropy against the teacher's distribution, both at that
        temperature; the z-loss and the routers' losses stay as they are (macro OBJECTIVE).
      teacher: the directory of a run or of an import, or of one of its checkpoints
        (macro TEACHER).
      checkpoint: of that run: "newest", "best" by validation loss, or a step
        (macro TEACHER_CHECKPOINT).
      share: of the teacher, from 0 to 1; 0 is pretraining (macro TEACHER_SHARE).
      temperature: above 0 (macro TEACHER_TEMPERATURE).
      start_step: steps done before the teacher counts (macro TEACHER_START_STEP).
      dtype: of the teacher's parameters in memory; its routers stay float32
        (macro TEACHER_DTYPE).
      logits: a name. `switchx data teach` writes the teacher's logits under it, beside the prepared
        set, and training reads them in the place of the teacher; None computes with the teacher
        (macro TEACHER_LOGITS).
      top_k: of each target the tokens whose logits are written, the likeliest; all others are one
        class more (macro TEACHER_TOP_K).
    """

    name: str = "pretraining"
    teacher: str | None = None
    checkpoint: str | int = "newest"
    share: float = 0.25
    temperature: float = 1.0
    start_step: int = 0
    dtype: str = "float32"
    logits: str | None = None
    top_k: int = 64

    def __post_init__(self) -> None:
        one_of("OBJECTIVE", self.name, OBJECTIVE_NAMES)
        if self.teacher is not None and not isinstance(self.teacher, str):
            raise UserError(f"TEACHER={self.teacher!r} must be the directory of a run, or None.")
        if self.checkpoint not in TEACHER_CHECKPOINTS and not _is_step(self.checkpoint):
            raise UserError(
                f"TEACHER_CHECKPOINT={self.checkpoint!r} is not one of "
                f"{', '.join(TEACHER_CHECKPOINTS)}, nor the number of a step."
            )
        if not is_number(self.share) or not 0 <= self.share <= 1:
            raise UserError(f"TEACHER_SHARE={self.share!r} must be from 0 to 1.")
        above_zero("TEACHER_TEMPERATURE", self.temperature)
        if not _is_step(self.start_step) or self.start_step >= 2**31:
            raise UserError(
                f"TEACHER_START_STEP={self.start_step!r} must be a whole number from 0 to "
                f"{2**31 - 1}."
            )
        one_of("TEACHER_DTYPE", self.dtype, TEACHER_DTYPES)
        if self.logits is not None and not isinstance(self.logits, str):
            raise UserError(f"TEACHER_LOGITS={self.logits!r} must be a name, or None.")
        if not is_whole(self.top_k) or self.top_k < 1:
            raise UserError(
                f"TEACHER_TOP_K={self.top_k!r} must be a whole number of at least 1, the tokens "
                "whose logits are written of each target."
            )


def _is_step(value: object) -> TypeGuard[int]:
    return is_whole(value) and value >= 0


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A checkpoint to learn from; its arrays are read when the first step is due.

    Attributes:
      config: how it is learnt from.
      model: what was trained there; None where its logits are read and it is not computed.
      model_dir, step: its run's directory, and which checkpoint.
      seal: of that checkpoint: no other has the same.
      vocabulary: its fingerprint; None where the checkpoint has none, as an import's.
    """

    config: ObjectiveConfig
    model: ModelConfig | None
    model_dir: Path
    step: int
    seal: str
    vocabulary: str | None = None

    @property
    def computed(self) -> ModelConfig | None:
        """Its model where that computes beside the student's."""
        return self.model if self.config.share else None

    def program(self) -> "Teacher":
        """The same for all runs that have their compiled steps in common."""
        config = dataclasses.replace(self.config, teacher=None, checkpoint="newest", logits=None)
        return Teacher(config, self.model, Path(), 0, "")

    @property
    def record(self) -> dict[str, object]:
        """What a run keeps of it: plain values for JSON."""
        return {"path": self.config.teacher, "step": self.step, "seal": self.seal}

    def check(self, student: ModelConfig) -> None:
        """Raises UserError where its answers are no distributions over the student's tokens."""
        named = f"TEACHER={self.config.teacher!r}"
        assert self.model is not None
        if self.model.vocab_size != student.vocab_size:
            raise UserError(
                f"{named} has a vocabulary of {self.model.vocab_size} rows, and this model "
                f"ModelConfig.vocab_size={student.vocab_size}: both must have the same."
            )
        if self.model.encoder_alone != student.encoder_alone:
            kinds = {True: "an encoder alone", False: "an encoder-decoder"}
            raise UserError(
                f"{named} is {kinds[self.model.encoder_alone]}, and this model "
                f"{kinds[student.encoder_alone]}: both must be of one kind."
            )

    def check_vocabulary(self, vocabulary: str) -> None:
        """Raises UserError where its checkpoint is known to be of another vocabulary."""
        if self.vocabulary not in (None, vocabulary):
            raise UserError(
                f"TEACHER={self.config.teacher!r} was trained with another VOCABULARY or other "
                "sentinels: set those it was trained with, or name another teacher."
            )
