"""The smallest slice that a run fits on, and the mesh and remat policy of the fastest step."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from switchx.errors import UserError
from switchx.model.config import REMAT_POLICIES
from switchx.planning import memory
from switchx.planning.devices import missing_compiler
from switchx.planning.plan import Plan, abstract_mesh, make_plan
from switchx.planning.topology import Topology
from switchx.sharding import MESH_AXES, MeshConfig
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.state import Setup
from switchx.training.step import abstract_batch

# Programs compiled on one slice before the next larger one is tried.
MOST_MESHES = 3
MOST_MICROBATCHES = 4  # times the configured number
MOST_MODEL_SHARDS = 16

Maker = Callable[[RunConfig, Topology], Plan]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Point:
    """Something tried: where, how, and what came of it.

    Attributes:
      settings: MESH_*, FULLY_SHARDED, REMAT and MICROBATCHES.
      fits: None where nothing was compiled and so nothing is known but `outcome`.
      outcome: in a few words, with figures.
      seconds: `Plan.seconds`, where it fits.
    """

    topology: str
    settings: dict[str, Any]
    fits: bool | None
    outcome: str
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """The best plan on the smallest slice, if any, and every point tried, in order."""

    best: Plan | None
    points: tuple[Point, ...]


def find(run: RunConfig, slices: Iterable[Topology], make: Maker, say: Say) -> Fit:
    """Tries slices in their order until the run fits one.

    On each, meshes whose state and gradients alone exceed a chip's memory are ruled out without
    compiling. Of the others the most promising are compiled, with all activations recomputed and,
    if that is not enough, in more microbatches; where that fits, with less recomputed.

    Args:
      make: makes a plan by compiling, such as `in_subprocess`.
    """
    points: list[Point] = []
    for topology in slices:
        hopeful, ruled_out = _screen(run, topology)
        points += ruled_out
        say(
            f"{topology.name}: {len(hopeful)} of {len(hopeful) + len(ruled_out)} meshes can hold "
            "state and gradients"
        )
        fitting: list[Plan] = []
        for candidate in hopeful[:MOST_MESHES]:
            for tried, plan in _plans(candidate, topology, make):
                points.append(_point(tried, plan))
                say(f"{topology.name} {_flags(points[-1])}: {points[-1].outcome}")
                if plan.fits:
                    fitting.append(plan)
        outcome = "not compiled: more traffic than those that were"
        for candidate in hopeful[MOST_MESHES:]:
            points.append(Point(topology.name, _settings(candidate), None, outcome))
        if fitting:
            return Fit(min(fitting, key=_seconds), tuple(points))
    return Fit(None, tuple(points))


def in_subprocess(run: RunConfig, topology: Topology) -> Plan:
    """A plan made by a process of its own, which gives all its memory back.

    Raises:
      UserError: as `make_plan`, or if the process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_make_quietly, run, topology).result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                f"The compiler ended without an answer on {topology.name}: most likely this "
                "machine has too little memory for it."
            ) from error


def require_compiler(topology: Topology) -> None:
    """Raises UserError if nothing can be compiled for these chips."""
    missing = missing_compiler(topology)
    if missing is not None:
        raise UserError(f"--fit compiles programs, but {missing}.")


def candidates(run: RunConfig, topology: Topology) -> Iterator[RunConfig]:
    """The run on every mesh over the topology that it accepts, those with the least traffic first.

    Splitting heads and d_ff costs all-reduces in every layer, fully sharded parameters are gathered
    in every layer, and experts pass tokens around: in this order, the dearest last.
    """
    runs = (dataclasses.replace(run, mesh=mesh) for mesh in _meshes(run, topology))
    accepted = (each for each in runs if _accepted(each, topology))
    cost = lambda each: (each.mesh.model, each.mesh.fully_sharded, -each.mesh.expert)  # noqa: E731
    return iter(sorted(accepted, key=cost))


def _meshes(run: RunConfig, topology: Topology) -> Iterator[MeshConfig]:
    replicas, rest = topology.slices, topology.num_chips // topology.slices
    experts = run.model.switch.num_experts if run.model.switch else 1
    for expert in _divisors(rest):
        if experts % expert:
            continue
        for model in _divisors(rest // expert):
            if model > MOST_MODEL_SHARDS:
                continue
            data = rest // expert // model
            for fully_sharded in (False, True) if data * expert > 1 else (False,):
                yield MeshConfig(data, expert, model, replicas, fully_sharded)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _accepted(run: RunConfig, topology: Topology) -> bool:
    try:
        check_run(run, cast(Mesh, abstract_mesh(run, topology)))  # it asks for the sizes alone
    except UserError:
        return False
    return True


def _screen(run: RunConfig, topology: Topology) -> tuple[list[RunConfig], list[Point]]:
    """The candidates whose state and gradients fit, and why the others do not."""
    hopeful, ruled_out = [], []
    assert topology.chip is not None
    for candidate in candidates(run, topology):
        setup = layout(candidate, topology)
        batch = abstract_batch(candidate.batch, setup)
        held = memory.analytic(setup, batch, topology.chip.hbm_bytes)
        if held.over:
            outcome = f"state and gradients alone: {held.over / 1e9:,.1f} GB over"
            ruled_out.append(Point(topology.name, _settings(candidate), False, outcome))
        else:
            hopeful.append(candidate)
    if not hopeful and not ruled_out:
        outcome = "no mesh divides the batch, the experts and the heads"
        ruled_out.append(Point(topology.name, {}, False, outcome))
    return hopeful, ruled_out


def layout(run: RunConfig, topology: Topology) -> Setup:
    """As Setup.of, but traced once for all meshes, and whatever is recomputed or done in parts."""
    mesh = abstract_mesh(run, topology)
    one = dataclasses.replace(run, mesh=MeshConfig(1, 1, 1, 1, run.mesh.fully_sharded))
    traced = _traced(_with(one, remat="none", microbatches=1))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, leaf.sharding.spec)
        ),
        traced.abstract,
    )
    return dataclasses.replace(traced, run=run, mesh=mesh, abstract=abstract)


@functools.lru_cache(2)
def _traced(run: RunConfig) -> Setup:
    return Setup.of(run, AbstractMesh((1,) * len(MESH_AXES), MESH_AXES))


def _plans(run: RunConfig, topology: Topology, make: Maker) -> Iterator[tuple[RunConfig, Plan]]:
    """Compiles one mesh until it fits, then with less recomputed for as long as it does."""
    least = _with(run, remat="full")
    plan = make(least, topology)
    yield least, plan
    while not plan.fits:
        parts = 2 * least.trainer.microbatches
        if parts == 2 and not plan.memory.microbatches_help:
            return
        least = _with(least, microbatches=parts)
        if parts > MOST_MICROBATCHES * run.trainer.microbatches or not _accepted(least, topology):
            return
        plan = make(least, topology)
        yield least, plan
    for remat in reversed(REMAT_POLICIES[:-1]):
        more = _with(least, remat=remat)
        plan = make(more, topology)
        yield more, plan
        if not plan.fits:
            return


def _with(run: RunConfig, remat: str | None = None, microbatches: int | None = None) -> RunConfig:
    if remat is not None:
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, remat=remat))
    if microbatches is not None:
        trainer = dataclasses.replace(run.trainer, microbatches=microbatches)
        run = dataclasses.replace(run, trainer=trainer)
    return run


def _settings(run: RunConfig) -> dict[str, Any]:
    """What the search chooses, as gin names it."""
    return {
        "MESH_DATA": run.mesh.data,
        "MESH_EXPERT": run.mesh.expert,
        "MESH_MODEL": run.mesh.model,
        "FULLY_SHARDED": run.mesh.fully_sharded,
        "REMAT": run.model.remat,
        "MICROBATCHES": run.trainer.microbatches,
    }


def _point(run: RunConfig, plan: Plan) -> Point:
    held = plan.memory
    if held.over:
        outcome = f"compiled: {held.over / 1e9:,.1f} GB over"
    else:
        outcome = f"fits: {held.total / 1e9:,.1f} of {(held.limit or 0) / 1e9:,.1f} GB"
    return Point(plan.topology, _settings(run), plan.fits, outcome, plan.seconds)


def _seconds(plan: Plan) -> float:
    return float("inf") if plan.seconds is None else plan.seconds


def _flags(point: Point) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in point.settings.items())


def _make_quietly(run: RunConfig, topology: Topology) -> Plan:
    return make_plan(run, topology, say=lambda _: None)
