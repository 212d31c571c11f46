"""What each point of a sweep needs: memory of a device, time, or why it could not run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from jax.sharding import Mesh

from switchx.api.teaching import taught
from switchx.errors import UserError
from switchx.model import Model
from switchx.planning import memory, plan, report
from switchx.planning.advice import advice
from switchx.planning.summary import abstract_mesh
from switchx.settings import check_fits
from switchx.sweeps.folder import Point
from switchx.sweeps.making import Made
from switchx.sweeps.points import Resolved
from switchx.sweeps.times import Time, own_steps, told
from switchx.training.checks import check_run
from switchx.training.config import OptimizerConfig, RunConfig, TrainerConfig
from switchx.training.freezing import step_flops
from switchx.training.state import Setup
from switchx.training.step import abstract_batch

if TYPE_CHECKING:
    from switchx.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Figures:
    """What planning says of one point.

    Attributes:
      memory: bytes on a device; None where its mesh is open or does not fit.
      whole: whether activations are part of it, as a compiled program tells.
      time: of the training; None where neither a point that is done nor a device's rate tells it.
      problem: why the point cannot run, and the setting to change; None where nothing is known.
    """

    memory: int | None
    whole: bool
    time: Time | None
    problem: str | None


class Planned(NamedTuple):
    """What a program needs: see `Figures`; a step takes `step_seconds`, as `told_by` says."""

    memory: int | None
    whole: bool
    step_seconds: float | None
    problem: str | None
    told_by: str = "bound"


def of_sweep(
    made: Made,
    topology: "Topology | None" = None,
    compiles: bool = True,
    say: Callable[[str], None] = print,
) -> list[Figures]:
    """Those of every point; points that compile the same program are planned once.

    Args:
      topology: what they are to run on; None counts bytes on the mesh that each point names.
      compiles: whether their programs are compiled for it, where a compiler is there. Else memory
        is that of the state, gradients and batch, and time that of the model's FLOPs at peak rate.
      say: is told, a line at a time, what takes long.
    """
    resolved = [_with_teacher(made, each) for each in made.resolved]
    problems = [problem or _problem(each, topology) for each, problem in resolved]
    programs = [_program(each.settings.run) for each, _ in resolved]
    planned: dict[RunConfig, Planned] = {}
    wanted = len({p for p, problem in zip(programs, problems, strict=True) if problem is None})
    for each, program, problem in zip(made.resolved, programs, problems, strict=True):
        if problem is None and program not in planned:
            number = f"{len(planned) + 1}/{wanted} {each.point.label}"
            said = functools.partial(_say_of, say, number)
            planned[program] = (
                _compiled(program, topology, said)
                if topology and compiles
                else _analytic(program, topology)
            )
    times = told(made.folder, made.resolved, programs)
    nothing = Planned(None, False, None, None)
    return [
        _figures(each.point, planned.get(program, nothing), time, problem)
        for each, program, time, problem in zip(
            made.resolved, programs, times, problems, strict=True
        )
    ]


def _figures(point: Point, planned: Planned, time: Time | None, problem: str | None) -> Figures:
    if time is None and planned.step_seconds is not None:
        time = Time(own_steps(point) * planned.step_seconds, planned.told_by)
    return Figures(planned.memory, planned.whole, time, problem or planned.problem)


def _say_of(say: Callable[[str], None], label: str, line: str) -> None:
    say(f"{label}: {line}")


def _program(run: RunConfig) -> RunConfig:
    """A run with all that its step's memory and time depend on, and nothing else."""
    kept, optimizer = run.trainer, run.optimizer
    return dataclasses.replace(
        run,
        trainer=TrainerConfig(train_steps=1, microbatches=kept.microbatches),
        optimizer=OptimizerConfig(name=optimizer.name, clip_global_norm=optimizer.clip_global_norm),
        teacher=run.teacher and run.teacher.program(),
    )


def _with_teacher(made: Made, each: Resolved) -> tuple[Resolved, str | None]:
    """A point with the teacher that its run will have, or why it would have none."""
    place = str(made.folder.config_file(each.point).parent)
    settings = dataclasses.replace(each.settings, model_dir=place)
    try:
        run = taught(settings, planned=True)
    except UserError as error:
        return each, each.settings.gin.explained(str(error))
    return dataclasses.replace(each, settings=dataclasses.replace(each.settings, run=run)), None


def _problem(each: Resolved, topology: "Topology | None") -> str | None:
    """Why a run would be refused, whatever its device holds; None where that is not known."""
    run = each.settings.run
    try:
        mesh = plan.abstract_mesh(run, topology) if topology else abstract_mesh(run.mesh)
        if mesh is not None:
            check_run(run, cast(Mesh, mesh))  # it asks for the sizes alone
        check_fits(each.settings)
    except UserError as error:
        return each.settings.gin.explained(str(error))
    return None


def _analytic(run: RunConfig, topology: "Topology | None") -> Planned:
    mesh = plan.abstract_mesh(run, topology) if topology else abstract_mesh(run.mesh)
    if mesh is None:
        return Planned(None, False, None, None)
    setup = Setup.of(run, mesh)
    chip = topology.chip if topology else None
    limit = chip.hbm_bytes if chip else None
    held = memory.analytic(setup, abstract_batch(run.batch, setup), limit)
    problem = None
    if held.over and topology:
        problem = (
            f"{topology.name} does not fit this run: without activations a chip needs "
            f"{held.total / 1e9:.2f} GB and has {(limit or 0) / 1e9:.2f}; try "
            f"{', or '.join(advice(run, cast(Mesh, mesh), held))}."
        )
    return Planned(held.total, False, _least_seconds(run, topology), problem)


def _least_seconds(run: RunConfig, topology: "Topology | None") -> float | None:
    """A step's, if its FLOPs were all that its chips do; None on CPU devices."""
    if topology is None or topology.chip is None:
        return None
    return step_flops(run, Model.of(run.model)) / (
        topology.num_chips * topology.chip.peak_flops(run.model.dtype)
    )


def _compiled(run: RunConfig, topology: "Topology", say: Callable[[str], None]) -> Planned:
    made = plan.make_plan(run, topology, say)
    problem = report.refusal(made) if made.fits is False else None
    told_by = "likely" if made.likely else "bound"
    whole = made.compilation is not None
    return Planned(made.memory.total, whole, made.seconds, problem, told_by)
