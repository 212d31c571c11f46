"""A run as a report sees it: its settings, its size and what it measured, from its directory alone.

Nothing is trained and no device is opened; a directory may be on this machine, at gs:// or s3://.
"""

import dataclasses
import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from switchx import settings, storage
from switchx.errors import UserError
from switchx.model import Model, ModelConfig
from switchx.model.counts import parameters_per_token
from switchx.planning.summary import parameters_by_group
from switchx.reports.pictures import DEAD_LOAD, curve
from switchx.settings.loading import SAVED
from switchx.training.config import RunConfig
from switchx.training.freezing import step_flops
from switchx.training.run_reader import metric_rows

_OF_TASK = "validation/"  # how a split begins that is of one task
_AT_ONCE = 16  # directories, which may lie in a bucket


class Curve(NamedTuple):
    """One figure over training: steps [T], ascending, and values [T], float64, all finite."""

    steps: np.ndarray
    values: np.ndarray


class LeftOut(NamedTuple):
    """What a report does not show, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Size:
    """What a model's configuration amounts to.

    Attributes:
      parameters: all of them, every expert's included: the paper's sparse parameters.
      parameters_per_token: without the experts that a token does not use.
      parameters_of_layers: of those, all but the routers': the same for any number of experts.
      flops_per_step, tokens_per_step: of one training step, with a teacher's forward pass; tokens
        of inputs and targets, padding counted.
      teacher_flops_per_step: how many of them are a teacher's.
    """

    parameters: int
    parameters_per_token: int
    parameters_of_layers: int
    flops_per_step: int
    tokens_per_step: int
    teacher_flops_per_step: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """A finished or running run.

    Attributes:
      name: what the report calls it.
      settings: values by the names that a user sets; see `GinConfig.settings`.
      num_experts: 1 of a dense model.
      seed, train_steps: macros SEED and TRAIN_STEPS.
      size: of its model.
      start: what start.json says; {} without it.
      curves: `validation_loss` and `train_loss` in nats per token, and of the training batches of a
        model with experts `dropped` (share of tokens, mean over layers), `entropy` (of the router,
        share of the most there can be, mean over layers), `most_used` (the fullest expert of all
        layers, in even shares) and `dead` (share of experts below DEAD_LOAD of an even share).
      seconds_per_step: of its own training rate, the median over rows: interruptions, pauses and
        the compiler have no part in it; None where no rate was measured.
      tasks: the validation loss of each task of a mixture that was evaluated alone.
    """

    name: str
    settings: Mapping[str, Any]
    num_experts: int
    seed: int
    train_steps: int
    size: Size
    start: Mapping[str, Any]
    curves: Mapping[str, Curve]
    seconds_per_step: float | None
    tasks: Mapping[str, Curve] = dataclasses.field(default_factory=dict)

    @property
    def steps_done(self) -> int:
        """The last step whose loss was evaluated, or measured where none ever was; 0 without."""
        found = self.curves.get("validation_loss", self.curves.get("train_loss"))
        return 0 if found is None else int(found.steps[-1])

    @property
    def is_finished(self) -> bool:
        """Whether its last step was evaluated, as that of each run is when it ends."""
        return self.steps_done >= self.train_steps


def read_runs(
    places: Mapping[str, storage.AnyPath],
) -> tuple[list[RunRecord], list[LeftOut]]:
    """The runs in directories, by their names, that have ended, and what cannot be shown."""

    def read(name: str) -> RunRecord | LeftOut:
        try:
            return read_run(name, places[name])
        except UserError as error:
            return LeftOut(name, str(error).rstrip("."))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(read, places))
    runs = [run for run in found if isinstance(run, RunRecord)]
    left_out = [run for run in found if isinstance(run, LeftOut)]
    for run in list(runs):
        why = _why_not(run)
        if why:
            runs.remove(run)
            left_out.append(LeftOut(run.name, why))
    return runs, left_out


def check_measured(runs: Mapping[str, RunRecord]) -> None:
    """Raises UserError where one of them, by their directories, has no losses yet."""
    for directory, run in runs.items():
        if not run.steps_done:
            raise UserError(
                f"RUN={directory!r} has no metrics yet: train it first, or leave it out."
            )


def _why_not(run: RunRecord) -> str | None:
    if not run.steps_done:
        return "it has no metrics yet"
    if not run.is_finished:
        return f"it is at step {run.steps_done:,} of {run.train_steps:,}"
    return None


def read_run(name: str, model_dir: storage.AnyPath) -> RunRecord:
    """One run's record.

    Raises:
      UserError: no run was started there, its configuration or its metrics are damaged, or they
        are of a later version.
    """
    directory = storage.as_path(model_dir, "RUN")
    config = directory / SAVED
    if not storage.is_file(config, "RUN"):
        raise UserError(
            f"RUN={str(model_dir)!r} holds no {SAVED}, so no run was started there: name a "
            "run's directory."
        )
    loaded = settings.load(settings.Request(gin_files=(str(config),)))
    model, trainer = loaded.run.model, loaded.run.trainer
    rows, start = metric_rows(directory), _json(directory / "start.json")
    return RunRecord(
        name=name,
        settings=loaded.gin.settings(),
        num_experts=model.switch.num_experts if model.switch else 1,
        seed=trainer.seed,
        train_steps=trainer.train_steps,
        size=size_of(loaded.run, _teacher_flops(loaded, start)),
        start=start,
        curves=_curves(rows, model),
        seconds_per_step=_seconds_per_step(rows),
        tasks=_tasks(rows),
    )


def _teacher_flops(loaded: settings.Settings, start: Mapping[str, Any]) -> int:
    """FLOPs of the forward pass of a sequence of the model that a run learns from, if any."""
    learns = loaded.objective.name == "distill" and loaded.objective.share
    teacher = start.get("teacher")
    found = teacher.get("forward_flops") if learns and isinstance(teacher, dict) else None
    return found if isinstance(found, int) else 0


def size_of(run: RunConfig, teacher_flops: int = 0) -> Size:
    """Parameters, FLOPs and tokens of a configuration; traced, nothing allocated.

    Args:
      teacher_flops: of a sequence, where `run` does not have its teacher.
    """
    batch = run.batch
    of_teacher = batch.batch_size * teacher_flops
    return Size(
        *_parameters(run.model),
        step_flops(run, Model.of(run.model)) + of_teacher,
        batch.batch_size * (batch.input_length + batch.target_length),
        of_teacher,
    )


@functools.cache
def _parameters(model: ModelConfig) -> tuple[int, int, int]:
    by_group = parameters_by_group(Model.of(model).shapes)
    total = sum(by_group.values())
    per_token = parameters_per_token(model)
    return total, per_token, per_token - by_group["router"]


def _json(path: storage.AnyPath) -> dict[str, Any]:
    try:
        found = json.loads(storage.read_if_there(path, "RUN") or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _curves(rows: list[dict[str, Any]], model: ModelConfig) -> dict[str, Curve]:
    found = {
        f"{split}_loss": Curve(*curve(rows, split, "loss")) for split in ("validation", "train")
    }
    if model.switch is not None:
        training = [row for row in rows if row["split"] == "train"]
        reduced = [{**row, **_of_load(row)} for row in training]
        found["dropped"] = Curve(*curve(reduced, "train", "mean_dropped_fraction"))
        entropy = Curve(*curve(reduced, "train", "mean_router_entropy"))
        most = np.log(model.switch.num_experts) or 1.0
        found["entropy"] = entropy._replace(values=entropy.values / most)
        for name in ("most_used", "dead"):
            found[name] = Curve(*curve(reduced, "train", name))
    return {name: one for name, one in found.items() if len(one.steps)}


def _tasks(rows: list[dict[str, Any]]) -> dict[str, Curve]:
    """By the names of the tasks."""
    splits = dict.fromkeys(s for row in rows if (s := row["split"]).startswith(_OF_TASK))
    found = {split: Curve(*curve(rows, split, "loss")) for split in splits}
    return {split.removeprefix(_OF_TASK): one for split, one in found.items() if len(one.steps)}


def _of_load(row: dict[str, Any]) -> dict[str, float]:
    """What is drawn of every layer's and expert's share of the tokens, in even shares."""
    if "load" not in row:
        return {}
    load_NE = np.array(row["load"], float)
    shares_NE = load_NE * load_NE.shape[-1]
    if not np.isfinite(shares_NE).all():
        return {}
    return {"most_used": float(shares_NE.max()), "dead": float((shares_NE < DEAD_LOAD).mean())}


def _seconds_per_step(rows: Sequence[dict[str, Any]]) -> float | None:
    rates = [row.get("steps_per_second") for row in rows if row["split"] == "train"]
    known = [rate for rate in rates if rate]
    # The first row is of the first step, which the compiler took its time for.
    known = known[1:] or known
    return 1 / statistics.median(known) if known else None
