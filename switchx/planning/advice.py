"""Which settings to change, and in what direction, where a program does not fit."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh

from switchx.errors import UserError
from switchx.planning.memory import Memory
from switchx.training.checks import check_run
from switchx.training.config import RunConfig

_NEXT_REMAT = {"none": "'dots' or 'full'", "dots": "'full'"}


def advice(run: RunConfig, mesh: Mesh, held: Memory) -> tuple[str, ...]:
    """Settings that this run accepts and that lower what takes most, the best first."""
    state = held.parameters + held.optimizer + held.gradients
    lines = list(_for_state(run, mesh)) if 2 * state > held.total else []
    lines += _for_activations(run, mesh, held)
    if 2 * state <= held.total:
        lines += _for_state(run, mesh)
    return (*lines, "a larger topology")


def _for_activations(run: RunConfig, mesh: Mesh, held: Memory) -> Iterator[str]:
    if run.model.remat in _NEXT_REMAT:
        yield f"REMAT={_NEXT_REMAT[run.model.remat]} (now {run.model.remat!r})"
    now = run.trainer.microbatches
    if now == 1 and not held.microbatches_help:
        return
    for parts in (2 * now, 4 * now):
        trainer = dataclasses.replace(run.trainer, microbatches=parts)
        if _accepted(dataclasses.replace(run, trainer=trainer), mesh):
            yield f"MICROBATCHES={parts} (now {now})"
            break


def _for_state(run: RunConfig, mesh: Mesh) -> Iterator[str]:
    sizes: dict[str, Any] = dict(mesh.shape)
    split = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, fully_sharded=True))
    copies = sizes["data"] * sizes["expert"]
    if copies > 1 and not run.mesh.fully_sharded and _accepted(split, mesh):
        yield "FULLY_SHARDED=True"
    widths, experts, model = run.model.expert_widths, 2 * sizes["expert"], 2 * sizes["model"]
    divides = {
        "expert": bool(widths) and all(number % experts == 0 for number, _ in widths),
        "model": all(n % model == 0 for n in (run.model.num_heads, *(F for _, F in widths))),
    }
    for axis, divided in divides.items():
        if divided and sizes["data"] % 2 == 0:
            yield f"MESH_{axis.upper()}={2 * sizes[axis]} with MESH_DATA={sizes['data'] // 2}"


def _accepted(run: RunConfig, mesh: Mesh) -> bool:
    try:
        check_run(run, mesh)
    except UserError:
        return False
    return True
