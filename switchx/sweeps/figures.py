"""What each point of a sweep needs: memory of a device, time, or why it could not run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from jax.sharding import Mesh

from switchx.errors import UserError
from switchx.planning import memory, plan, report
from switchx.planning.devices import missing_compiler
from switchx.planning.summary import abstract_mesh
from switchx.settings import check_fits
from switchx.sweeps.points import Resolved
from switchx.training.checks import check_run
from switchx.training.config import OptimizerConfig, RunConfig, TrainerConfig
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
      seconds: a step takes at least; None where no device's rate tells it.
      problem: why the point cannot run, and the setting to change; None where nothing is known.
    """

    memory: int | None
    whole: bool
    seconds: float | None
    problem: str | None


def of_points(
    resolved: Sequence[Resolved],
    topology: "Topology | None" = None,
    say: Callable[[str], None] = print,
) -> list[Figures]:
    """Those of every point; points that compile the same program are planned once.

    Args:
      topology: what they are to run on; compiled for, where a compiler is there. None counts bytes
        of the state on the mesh that each point names.
      say: is told, a line at a time, what takes long.
    """
    found: dict[RunConfig, Figures] = {}
    programs = [_program(each.settings.run) for each in resolved]
    distinct = len(set(programs))
    for each, program in zip(resolved, programs, strict=True):
        if program in found:
            continue
        if topology is None:
            found[program] = _analytic(program)
        else:
            said = functools.partial(
                _say_of, say, f"{len(found) + 1}/{distinct} {each.point.label}"
            )
            found[program] = _planned(program, topology, said)
    return [
        _checked(each, found[program]) for each, program in zip(resolved, programs, strict=True)
    ]


def _say_of(say: Callable[[str], None], label: str, line: str) -> None:
    say(f"{label}: {line}")


def _program(run: RunConfig) -> RunConfig:
    """A run with all that its step's memory and time depend on, and nothing else."""
    kept, optimizer = run.trainer, run.optimizer
    return dataclasses.replace(
        run,
        trainer=TrainerConfig(train_steps=1, microbatches=kept.microbatches),
        optimizer=OptimizerConfig(name=optimizer.name, clip_global_norm=optimizer.clip_global_norm),
    )


def _checked(each: Resolved, figures: Figures) -> Figures:
    """The same, or refused for what is no matter of the program."""
    try:
        check_fits(each.settings)
    except UserError as error:
        return dataclasses.replace(figures, problem=_explained(each, str(error)))
    problem = figures.problem
    return (
        figures
        if problem is None
        else dataclasses.replace(figures, problem=_explained(each, problem))
    )


def _explained(each: Resolved, problem: str) -> str:
    return each.settings.gin.explained(problem)


def _analytic(run: RunConfig) -> Figures:
    mesh = abstract_mesh(run.mesh)
    if mesh is None:
        return Figures(None, False, None, None)
    try:
        check_run(run, cast(Mesh, mesh))  # it asks for the sizes alone
    except UserError as error:
        return Figures(None, False, None, str(error))
    setup = Setup.of(run, mesh)
    held = memory.analytic(setup, abstract_batch(run.batch, setup), None)
    return Figures(held.total, False, None, None)


def _planned(run: RunConfig, topology: "Topology", say: Callable[[str], None]) -> Figures:
    try:
        made = plan.make_plan(run, topology, say)
    except UserError as error:
        return Figures(None, False, None, str(error))
    problem = report.refusal(made) if made.fits is False else None
    seconds = made.bound.seconds if made.bound else None
    whole = missing_compiler(topology) is None
    return Figures(made.memory.total, whole, seconds, problem)
