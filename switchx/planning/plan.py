"""One plan: the step that training runs, compiled for chips that are not here, and its figures."""

import dataclasses
import hashlib
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
from jax.sharding import AbstractMesh, Mesh

from switchx.planning import memory
from switchx.planning.advice import advice
from switchx.planning.devices import compile_only_devices, missing_compiler
from switchx.planning.estimate import Bound, Rates, least_memory_bytes, step_bound
from switchx.planning.flops import Flops, count_flops
from switchx.planning.memory import Memory
from switchx.planning.program import Collective, collectives
from switchx.planning.topology import Topology
from switchx.sharding import MESH_AXES, MeshConfig, make_mesh
from switchx.sharding.mesh import resolve
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.state import Setup
from switchx.training.step import abstract_batch, lower_train_step


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What compiling took on this machine: seconds, and this process's largest memory, in bytes.

    `cached` says that the program was read from the compile cache: `seconds` is what that took.
    """

    seconds: float
    host_bytes: int
    cached: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on a topology.

    Attributes:
      topology, chip: names; the chip is "" for CPU devices.
      run: a fingerprint of everything that the compiled step depends on.
      chips, hosts, slices: how many.
      mesh: size of each axis.
      settings: the macros that the figures depend on most.
      memory: on one chip.
      fits: whether a chip can hold it; None where nothing says so (no compiler, or no limit).
      advice: which settings to change where it does not fit.
      collectives: of one step, on one chip; () where nothing was compiled.
      flops: of one step, over all chips.
      bound: the least time a step can take; None where it does not fit.
      compilation: None where nothing was compiled.
      notes: lines that a reader of the figures must know.
    """

    topology: str
    chip: str
    run: str
    chips: int
    hosts: int
    slices: int
    mesh: dict[str, int]
    settings: dict[str, Any]
    memory: Memory
    fits: bool | None
    advice: tuple[str, ...]
    collectives: tuple[Collective, ...]
    flops: Flops
    bound: Bound | None
    compilation: Compilation | None
    notes: tuple[str, ...]


def make_plan(run: RunConfig, topology: Topology, say: Callable[[str], None] = print) -> Plan:
    """Lowers and compiles the run's training step for the topology, and measures the program.

    Args:
      say: is told, a line at a time, what takes long.

    Raises:
      UserError: if the mesh does not fit the topology or the run does not fit the mesh.
    """
    missing = missing_compiler(topology)
    mesh = _mesh(run, topology, missing is None)
    check_run(run, cast(Mesh, mesh))  # it asks for the sizes alone
    setup = Setup.of(run, mesh)
    if missing is not None:
        return _analytic(setup, topology, f"Nothing was compiled: {missing}.")
    return _compiled(setup, topology, say)


def _mesh(run: RunConfig, topology: Topology, compiler: bool) -> Mesh | AbstractMesh:
    """The run's mesh over the topology; without a compiler there are no devices, but sizes."""
    if compiler:
        return make_mesh(run.mesh, compile_only_devices(topology))
    return abstract_mesh(run, topology)


def abstract_mesh(run: RunConfig, topology: Topology) -> AbstractMesh:
    """The run's mesh without devices: enough to check it and to count bytes."""
    sizes = resolve(run.mesh, topology.num_chips)
    return AbstractMesh(tuple(sizes.values()), MESH_AXES)


def _compiled(setup: Setup, topology: Topology, say: Callable[[str], None]) -> Plan:
    batch = abstract_batch(setup.run.batch, setup)
    say(f"lowering the step for {topology.name}")
    lowered = lower_train_step(setup)
    say(f"compiling it for {topology.num_chips:,} chips")
    start, hits = time.monotonic(), _CacheHits()
    limit = topology.chip.hbm_bytes if topology.chip else None
    try:
        with hits, warnings.catch_warnings():
            # What compiles for chips that are not here writes to the cache but cannot read it.
            warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = memory.parse_refusal(str(error))
        if refusal is None:
            raise
        held = memory.of_refusal(refusal, setup, batch)
        return _plan(setup, topology, held, (), _compilation(start, False))
    compilation = _compilation(start, hits.count > 0)
    say(f"compiled in {compilation.seconds:.0f} s")
    held = memory.of_program(program, setup, batch, limit)
    moved = collectives(program.as_text() or "", dict(setup.mesh.shape))
    return _plan(setup, topology, held, moved, compilation)


def _analytic(setup: Setup, topology: Topology, note: str) -> Plan:
    batch = abstract_batch(setup.run.batch, setup)
    limit = topology.chip.hbm_bytes if topology.chip else None
    return _plan(setup, topology, memory.analytic(setup, batch, limit), (), None, (note,))


def _plan(
    setup: Setup,
    topology: Topology,
    held: Memory,
    moved: Sequence[Collective],
    compilation: Compilation | None,
    notes: tuple[str, ...] = (),
) -> Plan:
    flops = _flops(setup)
    fits = _fits(held, compilation)
    bound = None if fits is False else _bound(setup, topology, flops, moved, held)
    return Plan(
        topology=topology.name,
        chip=topology.chip.name if topology.chip else "",
        run=fingerprint(setup.run),
        chips=topology.num_chips,
        hosts=topology.hosts,
        slices=topology.slices,
        mesh=dict(setup.mesh.shape),
        settings=settings(setup.run),
        memory=held,
        fits=fits,
        advice=advice(setup.run, setup.mesh, held) if fits is False else (),
        collectives=tuple(moved),
        flops=flops,
        bound=bound,
        compilation=compilation,
        notes=notes,
    )


def _flops(setup: Setup) -> Flops:
    """They are the same on every mesh, so without devices one of this machine's will do."""
    if isinstance(setup.mesh, Mesh):
        return count_flops(setup)
    return count_flops(Setup.of(setup.run, make_mesh(MeshConfig(data=1), jax.devices("cpu")[:1])))


def _bound(
    setup: Setup, topology: Topology, flops: Flops, moved: Sequence[Collective], held: Memory
) -> Bound | None:
    """The least time of a step; None on CPU devices, whose rates are not known."""
    chip, batch = topology.chip, setup.run.batch
    if chip is None:
        return None
    arguments = held.state + held.batch
    temporaries = held.gradients + (held.activations or 0)
    return step_bound(
        executed_flops=flops.executed / topology.num_chips,
        model_flops=flops.model / topology.num_chips,
        memory_bytes=least_memory_bytes(arguments, held.state, temporaries),
        collectives=moved,
        axes=dict(setup.mesh.shape),
        rates=Rates(
            flops=chip.peak_flops(setup.run.model.dtype),
            memory=chip.hbm_rate,
            ici=chip.fabric_rate,
            dcn=chip.network_rate,
        ),
        tokens=batch.batch_size * (batch.input_length + batch.target_length),
        steps=setup.run.trainer.train_steps,
    )


def _fits(held: Memory, compilation: Compilation | None) -> bool | None:
    if held.limit is None:
        return None
    if held.over:
        return False
    return None if compilation is None else True


def settings(run: RunConfig) -> dict[str, Any]:
    """The macros that memory and time depend on, as gin names them."""
    named = {
        "BATCH_SIZE": run.batch.batch_size,
        "TASK_FEATURE_LENGTHS": {
            "inputs": run.batch.input_length,
            "targets": run.batch.target_length,
        },
        "TRAIN_STEPS": run.trainer.train_steps,
        "MICROBATCHES": run.trainer.microbatches,
        "REMAT": run.model.remat,
        "DTYPE": run.model.dtype,
        "OPTIMIZER": run.optimizer.name,
        "FULLY_SHARDED": run.mesh.fully_sharded,
    }
    if run.model.switch:
        named |= {
            "NUM_EXPERTS": run.model.switch.num_experts,
            "TRAIN_CAPACITY_FACTOR": run.model.switch.train_capacity_factor,
            "DISPATCHER": run.model.switch.dispatcher,
        }
    return named


def fingerprint(run: RunConfig) -> str:
    """Twelve hexadecimal digits that two runs share if they compile the same step."""
    return hashlib.sha256(repr(run).encode()).hexdigest()[:12]


class _CacheHits:
    """Counts programs read from JAX's compile cache while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "_CacheHits":
        jax.monitoring.register_event_listener(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_listener(self._heard)

    def _heard(self, event: str, **_: object) -> None:
        self.count += event == "/jax/compilation_cache/cache_hits"


def _compilation(start: float, cached: bool) -> Compilation:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host_bytes = peak if sys.platform == "darwin" else peak * 1024
    return Compilation(time.monotonic() - start, host_bytes, cached)
