#!/usr/bin/env python
"""What the switch layer costs on 64 to 4,096 chips: computation, exchange, and sums of gradients.

Forward and backward pass of the layer alone at Switch-Base sizes, as scripts/tpu_layer.py, compiled
for slices of v5e and v5p without having one, beside the dense feed-forward of the same tokens. What
moves is compared with closed formulas, which go on where nothing is compiled: several slices. One
line of JSON per program goes to --out; finished ones are not compiled again.

    python scripts/layer_scaling.py            # 33 programs, 15 to 50 s of CPU time each

Needs the extra `plan` (libtpu).
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import tpu_layer  # before JAX: it sets what libtpu needs

# isort: split
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullLocator

from switchx.model import ModelConfig, SwitchConfig, forward_flops
from switchx.model.router import expert_capacity
from switchx.planning.cycles import costs, total
from switchx.planning.devices import compile_only_devices
from switchx.planning.network import Network
from switchx.planning.program import Collective, collectives
from switchx.planning.topology import parse
from switchx.sharding import MESH_AXES, MeshConfig, make_mesh

D, F = tpu_layer.D_MODEL, tpu_layer.D_FF
SLICES = {
    "v5e": ("v5e:8x8", "v5e:8x16", "v5e:16x16"),
    "v5p": ("v5p:4x4x4", "v5p:4x8x8", "v5p:8x8x16", "v5p:16x16x16"),
}
BEYOND = ("2xv5e:16x16", "4xv5e:16x16", "16xv5e:16x16")
NARROW = 64  # experts, and chips that share them out, where there are not as many as chips
TOKENS = 4096  # a chip: the paper's 2^20 on 256
WORTH = 1 / 0.38  # steps of a dense model for each of 16 experts, docs/scaling.md


@dataclasses.dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
      topology: its chips.
      experts: 0 for the dense feed-forward.
      shards: chips that share the experts out; the rest are copies of these.
      tokens: of a chip.
    """

    topology: str
    experts: int
    shards: int
    tokens: int

    @property
    def mesh(self) -> MeshConfig:
        slices = parse(self.topology).slices
        chips = parse(self.topology).num_chips // slices
        return MeshConfig(chips // self.shards, self.shards, 1, slices)

    @property
    def model(self) -> ModelConfig:
        switch = None
        if self.experts:
            switch = SwitchConfig(self.experts, encoder_group_size=min(4096, self.tokens))
        return ModelConfig(32128, D, F, 64, 12, 2, init_scale=0.1, dtype="bfloat16", switch=switch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/layer_scaling.jsonl"))
    parser.add_argument("--picture", type=Path, default=Path("docs/scaling_cost.png"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = tpu_layer.read(args.out)
    for case in cases():
        if parse(case.topology).slices > 1 or record_of(case, done):
            continue
        done.append(dataclasses.asdict(case) | compiled(case))
        with args.out.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), file=sys.stderr, flush=True)
    rows = [Row.of(case, done) for case in cases() if case.experts]
    print(table(rows))
    draw(rows, args.picture)


def cases() -> list[Case]:
    """Chips grow at equal tokens a chip; then tokens, on 256 chips."""
    grown = [(name, TOKENS) for names in SLICES.values() for name in names]
    grown += [(name, tokens) for name in ("v5e:16x16", "v5p:4x8x8") for tokens in (1024, 16384)]
    grown += [(name, tokens) for name in BEYOND for tokens in (TOKENS, 16384)]
    found = []
    for name, tokens in grown:
        chips = min(256, parse(name).num_chips) if name in BEYOND else parse(name).num_chips
        for experts in dict.fromkeys((0, NARROW, chips)):
            found.append(Case(name, experts, experts or chips, tokens))
    return found


def record_of(case: Case, done: list[dict]) -> dict | None:
    return next((r for r in done if dataclasses.asdict(case).items() <= r.items()), None)


def compiled(case: Case) -> dict:
    """Seconds of computation by the compiler's cycles, and what moves."""
    mesh = make_mesh(case.mesh, compile_only_devices(parse(case.topology)))
    program = tpu_layer.compile_layer(case.model, case.tokens * mesh.size, mesh)
    text, chip = program.as_text() or "", parse(case.topology).chip
    assert chip is not None
    parts = costs(text, chip, Network.of(mesh, parse(case.topology)))
    computed = total(cost for part, cost in parts.items() if part not in ("exchange", "sums"))
    moved = collectives(text, dict(mesh.shape))
    return {
        "seconds": computed.total / chip.clock,
        "collectives": [dataclasses.asdict(one) for one in moved],
    }


def formulas(case: Case) -> list[Collective]:
    """The layer's all-to-alls of slots, and its sums of gradients.

    Those of experts are among their copies, of router or dense kernels among all chips. In bfloat16
    but for the router.
    """
    mesh = {axis: getattr(case.mesh, axis) for axis in MESH_AXES}
    axes = {axis: mesh[axis] for axis in MESH_AXES if mesh[axis] > 1}
    switch = case.model.switch
    if switch is None:
        return [Collective("all-reduce", "bf16", tuple(axes), 1, 2 * D * F * 2, 0)]
    E, S = case.experts, switch.encoder_group_size
    slots = case.tokens // S * E * expert_capacity(switch, S, train=True)
    found = [Collective("all-to-all", "bf16", ("expert",), 4, 4 * slots * D * 2, 0)]
    copies = tuple(axis for axis in axes if axis != "expert")
    if copies:
        held = E // mesh["expert"] * 2 * D * F * 2
        found.append(Collective("all-reduce", "bf16", copies, 1, held, 0))
    return [*found, Collective("all-reduce", "f32", tuple(axes), 1, D * E * 4, 0)]


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer's cost beside the dense feed-forward's, in seconds.

    Attributes:
      compute: by the compiler's cycles.
      exchange, sums: the least that the network needs, hops counted.
      dense: the dense feed-forward, its sums of gradients included.
      apart: bytes of all-to-alls and of sums beside the formulas', of a compiled program.
    """

    case: Case
    compute: float
    exchange: float
    sums: float
    dense: float
    apart: tuple[float, float] | None

    @classmethod
    def of(cls, case: Case, done: list[dict]) -> "Row":
        network, moved = network_of(case), formulas(case)
        dense_case = next(
            c for c in cases() if not c.experts and same_place(c, case) and c.tokens == case.tokens
        )
        dense = seconds(dense_case, done) + time(network_of(dense_case), formulas(dense_case))
        record = record_of(case, done)
        return cls(
            case,
            seconds(case, done),
            time(network, [one for one in moved if one.kind == "all-to-all"]),
            time(network, [one for one in moved if one.kind != "all-to-all"]),
            dense,
            record and apart(moved, [Collective(**one) for one in record["collectives"]]),
        )

    @property
    def own(self) -> bool:
        """Whether each chip of a slice has an expert of its own."""
        topology = parse(self.case.topology)
        return self.case.shards == topology.num_chips // topology.slices

    @property
    def times_dense(self) -> float:
        """One thing after the other."""
        return (self.compute + self.exchange + self.sums) / self.dense

    @property
    def overlapped(self) -> float:
        """The network works under the computation."""
        return max(self.compute, self.exchange + self.sums) / self.dense


def same_place(a: Case, b: Case) -> bool:
    return a.topology == b.topology


def network_of(case: Case) -> Network:
    topology = parse(case.topology)
    return Network.of(make_mesh(case.mesh, compile_only_devices(topology)), topology)


def time(network: Network, moved: list[Collective]) -> float:
    return sum(network.seconds(moved).values())


def seconds(case: Case, done: list[dict]) -> float:
    """Of computation. Of several slices as of one, which computes the same."""
    one = dataclasses.replace(case, topology=case.topology.split("xv")[-1].replace("5e", "v5e", 1))
    record = record_of(one if parse(case.topology).slices > 1 else case, done)
    assert record is not None
    return record["seconds"]


def apart(formula: list[Collective], found: list[Collective]) -> tuple[float, float]:
    ratios = []
    for exchange in (True, False):
        sums = [
            sum(one.bytes for one in some if (one.kind == "all-to-all") == exchange)
            for some in (found, formula)
        ]
        ratios.append(sums[0] / sums[1])
    return ratios[0], ratios[1]


def sparse_share() -> float:
    """Of T5-Base's FLOPs, those of the feed-forwards that Switch-Base makes sparse: half."""
    inputs, targets, layers = 512, 114, 12
    base = ModelConfig(32128, D, F, 64, 12, layers)
    return 4 * D * F * layers // 2 * (inputs + targets) / forward_flops(base, inputs, targets)


def table(rows: list[Row]) -> str:
    """Every layer, milliseconds of one forward and backward pass."""
    lines = [
        "| chips | experts | copies | tokens a chip | slots of an expert and group | MB exchanged "
        "| MB summed | compiled, of the formulas | computation | exchange | sums | layer, x dense "
        "(overlapped) | step, x T5-Base's |",
        "|" + "---|" * 13,
    ]
    for row in rows:
        case = row.case
        switch = case.model.switch
        assert switch is not None
        moved = formulas(case)
        exchanged = sum(one.bytes for one in moved if one.kind == "all-to-all")
        summed = sum(one.bytes for one in moved) - exchanged
        cells = (
            case.topology,
            f"{case.experts:,}",
            f"{parse(case.topology).num_chips // case.shards:,}",
            f"{case.tokens:,}",
            expert_capacity(switch, switch.encoder_group_size, train=True),
            f"{exchanged / 1e6:.1f}",
            f"{summed / 1e6:.1f}",
            ", ".join(f"{ratio:.2f}" for ratio in row.apart) if row.apart else "",
            *(f"{1000 * each:.2f}" for each in (row.compute, row.exchange, row.sums)),
            f"{row.times_dense:.2f} ({row.overlapped:.2f})",
            f"{1 + sparse_share() * (row.times_dense - 1):.2f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Times dense against chips, and against tokens a chip on 256."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    limit = 1 + (WORTH - 1) / sparse_share()
    for color, (kind, narrow) in enumerate((k, n) for k in SLICES for n in (False, True)):
        mine = [
            row
            for row in rows
            if family(row.case) == kind and (row.case.shards == NARROW if narrow else row.own)
        ]
        label = f"{kind}, {f'{NARROW} experts' if narrow else 'an expert a chip'}"
        style = {"color": f"C{color}", "marker": "o"}
        grown = [row for row in mine if row.case.tokens == TOKENS]
        chips = [parse(row.case.topology).num_chips for row in grown]
        left.plot(chips, [row.times_dense for row in grown], label=label, **style)
        left.plot(chips, [row.overlapped for row in grown], linestyle=":", **style)
        tokens = sorted(
            (row for row in mine if parse(row.case.topology).num_chips == 256),
            key=lambda row: row.case.tokens,
        )
        right.plot([r.case.tokens for r in tokens], [r.times_dense for r in tokens], **style)
        right.plot(
            [r.case.tokens for r in tokens], [r.overlapped for r in tokens], linestyle=":", **style
        )
    for axes, name in (
        (left, f"chips, at {TOKENS:,} tokens each"),
        (right, "tokens of each of 256"),
    ):
        axes.axhline(limit, color="gray", linewidth=0.8)
        axes.set(xlabel=name, xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.set_xticks(sorted({x for line in axes.lines[:-1] for x in line.get_xdata()}))
        axes.set_yticks([1, 2, 3, 5, 10, 15])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,.0f}")
            axis.set_minor_locator(NullLocator())
    left.set_ylabel("layer, x dense; dotted: overlapped at best")
    left.legend(frameon=False, fontsize=8)
    left.annotate("steps saved by 16 experts", (64, limit), (0, 3), textcoords="offset points")
    figure.savefig(path, dpi=120)


def family(case: Case) -> str:
    chip = parse(case.topology).chip
    assert chip is not None
    return chip.name


if __name__ == "__main__":
    main()
