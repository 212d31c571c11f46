#!/usr/bin/env python
"""Compiles the switch layer for TPUs, without having one, and counts what it would do.

Forward and backward pass of the layer alone at Switch-Base sizes (d_model 768, d_ff 3072, bfloat16
compute, float32 parameters, capacity 1.25), against the dense feed-forward of equal FLOPs on the
same tokens. One line of JSON per program goes to --out; finished ones are not compiled again.

    python scripts/tpu_layer.py                                   # the default grid, 46 programs
    python scripts/tpu_layer.py --chips v5e v5e:4x4 --experts 128 --groups 512 1024
    python scripts/tpu_layer.py --dispatchers ragged --chips v5e:4x4 --experts 128 --pools 16
    python scripts/tpu_layer.py --chips v5e:4x4 --options xla_tpu_scoped_vmem_limit_kib=32768

Needs the extra `plan` (libtpu).
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from switchx.planning import environment

environment.prepare()

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding

from switchx.model import NO_NOISE, ModelConfig, SwitchConfig
from switchx.model.experts import experts_of
from switchx.model.in_stacks import InStacks, in_stacks
from switchx.model.layers import FeedForward
from switchx.model.switch_layer import NO_GROUPING, Grouping, SwitchLayer
from switchx.planning.cycles import PARTS, Cost, costs, total
from switchx.planning.network import Network
from switchx.planning.program import collectives
from switchx.planning.topology import parse
from switchx.sharding import MESH_AXES, batch_sharding, spec

D_MODEL, D_FF, LENGTH = 768, 3072, 512
# What a chip's name stands for: a topology, and how many of its chips.
CHIPS = {
    "v5e": ("v5e:2x2", 1),
    "v5e:4x4": ("v5e:4x4", 16),
    "v5p": ("v5p:2x2x1", 1),
    "v5p:2x2x4": ("v5p:2x2x4", 16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--experts", nargs="+", type=int, default=[8, 128])
    parser.add_argument("--groups", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--dispatchers", nargs="+", default=["einsum", "index", "ragged"])
    parser.add_argument("--pools", type=int, default=0, help="of ragged, that share slots; 0: none")
    parser.add_argument("--tokens", type=int, default=16384, help="per chip")
    parser.add_argument("--options", nargs="*", default=[], help="of the compiler, NAME=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/tpu_layer.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(args.out)
    for case in cases(args):
        if not any(case.items() <= record.items() for record in done):
            record = case | compiled(**case)
            done.append(record)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), file=sys.stderr, flush=True)
    print(table(done))


def read(path: Path) -> list[dict]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [{"options": "", "pools": 0} | json.loads(line) for line in lines]


def cases(args: argparse.Namespace) -> Iterator[dict]:
    """The dense layer of each chip, then the grid. Without capacity the group changes nothing."""
    for chips in args.chips:
        common = {"chips": chips, "tokens": args.tokens, "options": " ".join(args.options)}
        yield common | {"dispatcher": "dense", "experts": 0, "group": 0, "pools": 0}
        for E, kind in itertools.product(args.experts, args.dispatchers):
            if E % CHIPS[chips][1] == 0 or CHIPS[chips][1] == 1:
                pools = args.pools if kind == "ragged" else 0
                groups = args.groups[-1:] if kind == "ragged" and not pools else args.groups
                for group in groups:
                    own = {"dispatcher": kind, "experts": E, "group": group, "pools": pools}
                    yield common | own


def compiled(
    chips: str, tokens: int, options: str, dispatcher: str, experts: int, group: int, pools: int
) -> dict:
    """What one program costs on each chip."""
    mesh = make_mesh(chips)
    switch = None
    if experts:
        own = {"ragged_pools": pools} if pools else {}
        switch = SwitchConfig(experts, encoder_group_size=group, dispatcher=dispatcher, **own)
    config = ModelConfig(
        32128, D_MODEL, D_FF, 64, 12, 2, init_scale=0.1, dtype="bfloat16", switch=switch
    )
    told = dict(option.split("=") for option in options.split())
    program = compile_layer(config, tokens * mesh.size, mesh, told)
    text = program.as_text() or ""
    # All devices are on one axis, so each kind and dtype is one row.
    moves = {f"{each.kind} {each.dtype}": each.count for each in collectives(text, mesh.shape)}
    topology = parse(CHIPS[chips][0])
    parts = costs(text, topology.chip, Network.of(mesh, topology))
    return {
        "flops": program.cost_analysis()["flops"],
        "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
        "parts": {part: vars(cost) for part, cost in parts.items()},
        "collectives": dict(sorted(moves.items())),
    }


def make_mesh(chips: str) -> Mesh:
    """All chips on the expert axis."""
    topology, number = CHIPS[chips]
    # A v5p chip is two cores that compute as one device only in this configuration.
    options = {"chip_config_name": "megacore"} if topology.startswith("v5p") else {}
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, **options
    ).devices[:number]
    sizes = [number if axis == "expert" else 1 for axis in MESH_AXES]
    auto = (AxisType.Auto,) * len(MESH_AXES)
    return Mesh(np.array(devices).reshape(sizes), MESH_AXES, axis_types=auto)


def compile_layer(
    config: ModelConfig, tokens: int, mesh: Mesh, options: dict[str, str] | None = None
) -> jax.stages.Compiled:
    """The layer's output and the gradients of its parameters and its input.

    As a loop over one layer has it: with the parameters of all layers.
    """

    def make() -> SwitchLayer | FeedForward:
        rngs = nnx.Rngs(params=jax.random.key(0))
        if config.switch is None:
            return FeedForward(config, rngs)
        return SwitchLayer(config, config.switch, experts_of(config, rngs), rngs)

    graphdef, abstract = nnx.split(nnx.eval_shape(make))

    def objective(params_1: nnx.State, x_BLD: jax.Array, dy_BLD: jax.Array) -> tuple:
        grouping, balance = NO_GROUPING, 0.0
        if config.switch is not None:
            grouping = Grouping.of(config.switch, causal=False, train=True)
        chosen = in_stacks(config, grouping, *x_BLD.shape[:2])
        stacks = InStacks(nnx.merge(graphdef, params_1), chosen)
        first = jax.tree.map(lambda param: param[0], stacks.others_N)
        layer = stacks.block(first, stacks.passed, jnp.zeros((), jnp.int32))
        if config.switch is None:
            y_BLD = layer(x_BLD, NO_NOISE)
        else:
            mask_BL = jnp.ones(x_BLD.shape[:2], bool)
            y_BLD, routed = layer(x_BLD, mask_BL, grouping, NO_NOISE)
            balance = config.switch.balance_loss_weight * routed.stats.balance_loss
        y_BLD = stacks.ended(y_BLD, stacks.handed_on(layer))
        return jnp.sum((y_BLD * dy_BLD).astype(jnp.float32)) + balance, y_BLD

    params = jax.tree.map(
        lambda p: p.replace(
            jax.ShapeDtypeStruct(
                (1, *p.shape), p.dtype, sharding=NamedSharding(mesh, spec("layers", *p.axes))
            )
        ),
        abstract,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )
    shape = (tokens // LENGTH, LENGTH, D_MODEL)
    x_BLD = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=batch_sharding(mesh))
    step = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    with jax.set_mesh(mesh):
        return step.lower(params, x_BLD, x_BLD).compile(compiler_options=options)


def table(records: list[dict]) -> str:
    """Every program beside the dense layer on the same chips and as many tokens.

    Millions of cycles; "together" has what is not estimated, as if nothing overlapped.
    """
    shown = [part for part in PARTS if part not in ("attention", "stacks", "optimizer")]
    head = ["chips", "options", "experts", "dispatcher", "pools", "group", "FLOPs x dense", *shown]
    head += ["together", "x dense", "not estimated", "x dense without it", "GB", "collectives"]
    lines = [head, ["---"] * len(head)]
    for r in records:
        same = {key: r[key] for key in ("chips", "tokens", "options")} | {"dispatcher": "dense"}
        dense = next(d for d in records if same.items() <= d.items())
        parts, whole, least = _parts(r), total(_parts(r).values()), total(_parts(dense).values())
        lines.append(
            [
                r["chips"],
                r["options"],
                str(r["experts"] or ""),
                r["dispatcher"],
                str(r["pools"] or ""),
                str(r["group"] or ""),
                f"{r['flops'] / dense['flops']:.2f}",
                *(f"{parts[part].total / 1e6:.2f}" for part in shown),
                f"{whole.total / 1e6:.2f}",
                f"{whole.total / least.total:.2f}",
                f"{whole.priced / 1e6:.2f}",
                f"{whole.cycles / least.cycles:.2f}",
                f"{whole.bytes / 1e9:.2f}",
                ", ".join(f"{n} {kind}" for kind, n in r["collectives"].items()) or "none",
            ]
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _parts(record: dict) -> dict[str, Cost]:
    return {part: Cost(**values) for part, values in record["parts"].items()}


if __name__ == "__main__":
    main()
