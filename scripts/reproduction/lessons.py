"""Tables 6 and 7 of the paper: which teachers and students are trained, and how."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

STEPS, BATCH = 1000, 32
GIN_FILE = Path(__file__).parents[2] / "configs/runs/laptop_experts.gin"
CHOICE_SEED, TEACHER_SEED = 0, 10  # the second is of no student
SIZES = (4, 8, 16, 32, 64)  # experts of the teachers
LARGEST = SIZES[-1]
STARTS = ("mean", "most_used", "top_k", "low_rank")  # feed-forwards made of experts


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A model that is trained: the dense one, a teacher, or a dense student of it.

    Attributes:
      label: what is otherwise, in a line of a table.
      seeds: of its runs. Those of CHOICE_SEED chose the settings, the others tell.
      experts: 1 is the dense model.
      teacher: experts of the teacher whose gain it is to keep.
      settings: macros by name, beside those of all runs; TEACHER and START_FROM are the name and
        the seed of another run.
    """

    label: str
    seeds: tuple[int, ...] = (1, 2)
    experts: int = 1
    teacher: int | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def set(self, runs: Path, seed: int) -> dict[str, Any]:
        """Every setting by name; `runs` is the folder that all lessons' runs are in."""
        named = {**_ALL, "SEED": seed, **_of_experts(self.experts), **self.settings}
        if named["SCHEDULE"] != "wsd":
            del named["DECAY_SHARE"]
        return {
            name: str(runs / directory(*value)) if name in ("TEACHER", "START_FROM") else value
            for name, value in named.items()
        }


_ALL: dict[str, Any] = {
    "TRAIN_STEPS": STEPS,
    # Half of the sweep's, so that there are more steps in the same minutes.
    "BATCH_SIZE": BATCH,
    "EVAL_STEPS": 80,
    "EVAL_PERIOD": STEPS // 4,
    "CHECKPOINT_PERIOD": STEPS,
    # The rate falls to 0 in the end: the last steps' noise would hide differences.
    "SCHEDULE": "wsd",
    "LEARNING_RATE": 0.06,
    "WARMUP_STEPS": 20,
    "DECAY_SHARE": 0.3,
}


def _of_experts(experts: int) -> dict[str, Any]:
    """As in configs/sweeps/laptop_experts.gin, with half of the room at evaluation."""
    if experts == 1:
        return {"ModelConfig.switch": None}
    return {
        "NUM_EXPERTS": experts,
        "ENCODER_GROUP_SIZE": BATCH * 16,  # the whole batch
        "DECODER_GROUP_SIZE": BATCH * 112,
        "SwitchConfig.router_init_scale": math.sqrt(experts),
        "SwitchConfig.balance_loss_weight": min(0.01, 0.16 / experts),
        "TRAIN_CAPACITY_FACTOR": min(4.0, float(experts)),
        "EVAL_CAPACITY_FACTOR": min(8.0, float(experts)),
    }


def teacher_name(experts: int) -> str:
    return f"{experts} experts"


def student_name(experts: int) -> str:
    """The paper's recipe, from a teacher of that many experts."""
    return f"student of {experts}"


def directory(name: str, seed: int) -> str:
    return f"{name.replace(' ', '_')}-{seed}"


def _distilled(experts: int, share: float) -> dict[str, Any]:
    teacher = (teacher_name(experts), TEACHER_SEED)
    return {"OBJECTIVE": "distill", "TEACHER": teacher, "TEACHER_SHARE": share}


def _begun(experts: int, feed_forwards: str = "fresh") -> dict[str, Any]:
    """Attention, norms and embeddings are the teacher's; feed-forwards are made of its experts."""
    teacher = (teacher_name(experts), TEACHER_SEED)
    return {"START_FROM": teacher, "START_FEED_FORWARDS": feed_forwards}


def _of_largest(label: str, seeds: tuple[int, ...] = (1, 2), **settings: Any) -> Lesson:
    return Lesson(label, seeds, teacher=LARGEST, settings=settings)


def _recipe(experts: int, seeds: tuple[int, ...] = (1, 2)) -> Lesson:
    """The paper's, of a teacher of that many experts."""
    settings = {**_distilled(experts, 0.25), **_begun(experts)}
    return Lesson("+ 0.75 hard and 0.25 soft loss", seeds, teacher=experts, settings=settings)


def _screened(way: str) -> Lesson:
    """The recipe from another start, a quarter of the steps: the rate is the same up to there."""
    short = {"TRAIN_STEPS": STEPS // 4, "SCHEDULE": "constant", "CHECKPOINT_PERIOD": STEPS // 4}
    settings = {**_distilled(LARGEST, 0.25), **_begun(LARGEST, way), **short}
    return _of_largest(way, (CHOICE_SEED,), **settings)


LESSONS: dict[str, Lesson] = {
    "dense": Lesson("dense", (CHOICE_SEED, 1, 2)),
    **{teacher_name(n): Lesson(f"{n} experts", (TEACHER_SEED,), n) for n in SIZES},
    "distilled": _of_largest("distillation", **_distilled(LARGEST, 1.0)),
    "distilled, initialised": _of_largest(
        "+ non-expert weights from the teacher", **_distilled(LARGEST, 1.0), **_begun(LARGEST)
    ),
    "initialised": _of_largest("non-expert weights from the teacher alone", **_begun(LARGEST)),
    # What of that is the longer training of these weights.
    "initialised from dense": _of_largest(
        "the same from a dense model", START_FROM=("dense", CHOICE_SEED), START_FRESH=("*/dense/*",)
    ),
    **{student_name(n): _recipe(n) for n in SIZES[:-1]},
    student_name(LARGEST): _recipe(LARGEST, (CHOICE_SEED, 1, 2)),
    **{way: _screened(way) for way in STARTS},
    "top_k, 0.25": _of_largest(
        "+ feed-forwards of the teacher's best neurons",
        (CHOICE_SEED, 1, 2),
        **_distilled(LARGEST, 0.25),
        **_begun(LARGEST, "top_k"),
    ),
    "top_k, 0.5": _of_largest(
        "+ half of the loss soft",
        (CHOICE_SEED, 1, 2),
        **_distilled(LARGEST, 0.5),
        **_begun(LARGEST, "top_k"),
    ),
}


class Row(NamedTuple):
    """A row of the paper's Table 6: negative log perplexity, and what is kept of the gain."""

    lesson: str
    paper: str
    kept: str = ""


TABLE_6 = (
    Row("dense", "-1.636"),
    Row(teacher_name(LARGEST), "-1.444"),
    Row("distilled", "-1.631", "3 %"),
    Row("distilled, initialised", "-1.598", "20 %"),
    Row(student_name(LARGEST), "-1.580", "29 %"),
    Row("initialised", "-1.639"),
)

# The paper's: parameters of the teacher, its figure, its student's, what is kept, and the
# compression; from the smallest teacher to the largest.
TABLE_7 = (
    ("1.1B", "-1.505", "-1.587", "37 %", "82 %"),
    ("2.0B", "-1.474", "-1.585", "32 %", "90 %"),
    ("3.8B", "-1.444", "-1.579", "30 %", "95 %"),
    ("7.4B", "-1.432", "-1.582", "27 %", "97 %"),
    ("14.7B", "-1.427", "-1.578", "28 %", "99 %"),
)
