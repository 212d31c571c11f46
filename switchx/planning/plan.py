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
from switchx.planning.devices import compile_only_devices, compiler_options, missing_compiler
from switchx.planning.estimate import Bound, Rates, least_memory_bytes, step_bound
from switchx.planning.flops import Flops, count_flops
from switchx.planning.likely import Likely, likely
from switchx.planning.memory import Memory
from switchx.planning.network import Network
from switchx.planning.program import Collective, collectives
from switchx.planning.topology import Topology
from switchx.sharding import MESH_AXES, MeshConfig, make_mesh
from switchx.sharding.mesh import resolve
from switchx.training.checks import check_run
from switchx.training.config import RunConfig
from switchx.training.state import Setup
from switchx.training.step import abstract_batch, lower_train_step
from switchx.training.teacher import ObjectiveConfig


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What compiling, or reading the compile cache, took on this machine.

    Attributes:
      seconds: of it.
      host_bytes: this process's largest memory.
    """

    seconds: float
    host_bytes: int

    @classmethod
    def since(cls, start: float) -> "Compilation":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        in_bytes = peak if sys.platform == "darwin" else peak * 1024
        return cls(time.monotonic() - start, in_bytes)


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
      likely: the time that it is likely to take; None where that is not known, as on GPUs.
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
    likely: Likely | None
    compilation: Compilation | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Of a step: likely, or where that is not known at least; None where nothing is."""
        told = self.likely or self.bound
        return told.seconds if told else None


def make_plan(run: RunConfig, topology: Topology, say: Callable[[str], None] = print) -> Plan:
    """Lowers and compiles the run's training step for the topology, and measures the program.

    Args:
      say: is told, a line at a time, what takes long.

    Raises:
      UserError: if the mesh does not fit the topology or the run does not fit the mesh.
    """
    missing = missing_compiler(topology)
    # Without a compiler there are no devices, but sizes.
    mesh = abstract_mesh(run, topology) if missing else _mesh_of_devices(run, topology)
    check_run(run, cast(Mesh, mesh))  # it asks for the sizes alone
    setup = Setup.of(run, mesh)
    limit = topology.chip.hbm_bytes if topology.chip else None
    batch = abstract_batch(run.batch, setup)
    if missing is not None:
        held = memory.analytic(setup, batch, limit)
        return _plan(setup, topology, held, None, (f"Nothing was compiled: {missing}.",))
    say(f"lowering the step for {topology.name}")
    lowered = lower_train_step(setup)
    say(f"compiling it for {topology.num_chips:,} chips")
    start = time.monotonic()
    program = compiled(lowered, topology)
    compilation = Compilation.since(start)
    if isinstance(program, memory.Refusal):
        held = memory.of_refusal(program, setup, batch)
        return _plan(setup, topology, held, compilation)
    say(f"compiled in {compilation.seconds:.0f} s")
    held = memory.of_program(program, setup, batch, limit)
    return _plan(setup, topology, held, compilation, text=program.as_text() or "")


def abstract_mesh(run: RunConfig, topology: Topology) -> AbstractMesh:
    """The run's mesh without devices: enough to check it and to count bytes."""
    sizes = resolve(run.mesh, topology.num_chips)
    return AbstractMesh(tuple(sizes.values()), MESH_AXES)


def _mesh_of_devices(run: RunConfig, topology: Topology) -> Mesh:
    return make_mesh(run.mesh, compile_only_devices(topology))


def compiled(
    lowered: jax.stages.Lowered, topology: Topology
) -> jax.stages.Compiled | memory.Refusal:
    """The program, or why it does not fit."""
    try:
        with warnings.catch_warnings():
            # What compiles for chips that are not here writes to the cache but cannot read it.
            warnings.filterwarnings("ignore", message="Error reading persistent compilation cache")
            return lowered.compile(compiler_options=compiler_options(topology))
    except jax.errors.JaxRuntimeError as error:
        refusal = memory.parse_refusal(str(error))
        if refusal is None:
            raise
        return refusal


def _plan(
    setup: Setup,
    topology: Topology,
    held: Memory,
    compilation: Compilation | None,
    notes: tuple[str, ...] = (),
    text: str = "",
) -> Plan:
    """`text`: of the compiled program; "" where there is none."""
    fits: bool | None = None
    if held.over:
        fits = False
    elif held.limit is not None and compilation is not None:
        fits = True
    if setup.run.batch.taught:
        notes += ("The teacher's logits come with each batch: the teacher is not loaded.",)
    flops, axes = _flops(setup), dict(setup.mesh.shape)
    moved = collectives(text, axes) if text else []
    wired = Network.of(cast(Mesh, setup.mesh), topology) if text and topology.chip else None
    bound = None if fits is False else _bound(setup, topology, flops, held, wired, moved)
    expected = None
    if topology.chip and wired and bound:
        expected = likely(text, topology.chip, wired, bound)
    return Plan(
        topology=topology.name,
        chip=topology.chip.name if topology.chip else "",
        run=fingerprint(setup.run),
        chips=topology.num_chips,
        hosts=topology.hosts,
        slices=topology.slices,
        mesh=axes,
        settings=settings(setup.run),
        memory=held,
        fits=fits,
        advice=advice(setup.run, setup.mesh, held) if fits is False else (),
        collectives=tuple(moved),
        flops=flops,
        bound=bound,
        likely=expected,
        compilation=compilation,
        notes=notes,
    )


def _flops(setup: Setup) -> Flops:
    """They are the same on every mesh, so without devices one of this machine's will do."""
    if isinstance(setup.mesh, Mesh):
        return count_flops(setup)
    return count_flops(Setup.of(setup.run, make_mesh(MeshConfig(data=1), jax.devices("cpu")[:1])))


def _bound(
    setup: Setup,
    topology: Topology,
    flops: Flops,
    held: Memory,
    wired: Network | None,
    moved: Sequence[Collective],
) -> Bound | None:
    """The least time of a step; None on CPU devices, whose rates are not known."""
    chip, batch = topology.chip, setup.run.batch
    if chip is None:
        return None
    network, each = {"ici": 0.0, "dcn": 0.0}, tuple[float, ...]()
    if wired:
        network = wired.seconds(moved)
        each = tuple(max(wired.seconds([one]).values()) for one in moved)
    temporaries = held.gradients + (held.activations or 0)
    return step_bound(
        executed_flops=flops.executed / topology.num_chips,
        model_flops=flops.model / topology.num_chips,
        memory_bytes=least_memory_bytes(
            held.state + held.constants + held.batch, held.state - held.frozen, temporaries
        ),
        network=network,
        collectives=each,
        rates=Rates(flops=chip.peak_flops(setup.run.model.dtype), memory=chip.hbm_rate),
        tokens=batch.batch_size * (batch.input_length + batch.target_length),
        steps=setup.run.trainer.train_steps,
    )


def settings(run: RunConfig) -> dict[str, Any]:
    """The macros that memory and time depend on, as gin names them."""
    inputs = run.batch.input_length
    lengths = {"inputs": inputs, "targets": run.batch.target_length or inputs}
    named = {
        "BATCH_SIZE": run.batch.batch_size,
        "TASK_FEATURE_LENGTHS": lengths,
        "TRAIN_STEPS": run.trainer.train_steps,
        "MICROBATCHES": run.trainer.microbatches,
        "REMAT": run.model.remat,
        "DTYPE": run.model.dtype,
        "OPTIMIZER": run.optimizer.name,
        "FULLY_SHARDED": run.mesh.fully_sharded,
    }
    if run.teacher is not None:
        named |= _teacher_settings(run.teacher.config)
    if run.optimizer.frozen:
        named["FREEZE"] = run.optimizer.frozen
    switch = run.model.switch
    if switch:
        named["NUM_EXPERTS"] = switch.num_experts
        if switch.expert_widths is not None:
            named["SwitchConfig.expert_widths"] = switch.expert_widths
            named["SwitchConfig.balance_by"] = switch.balance_by
        named["TRAIN_CAPACITY_FACTOR"] = switch.train_capacity_factor
        named["DISPATCHER"] = switch.dispatcher
        if switch.ragged_pools is not None:
            named["RAGGED_POOLS"] = switch.ragged_pools
    return named


def _teacher_settings(config: ObjectiveConfig) -> dict[str, Any]:
    if config.logits is not None:
        return {"TEACHER_LOGITS": config.logits, "TEACHER_TOP_K": config.top_k}
    return {"TEACHER": config.teacher, "TEACHER_DTYPE": config.dtype}


def fingerprint(run: RunConfig) -> str:
    """Twelve hexadecimal digits that two runs share if they compile the same step."""
    return hashlib.sha256(repr(run).encode()).hexdigest()[:12]
