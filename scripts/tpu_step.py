#!/usr/bin/env python
"""Compiles whole training steps for TPUs, without having one, and counts what they would do.

The step that training runs, at the paper's batch (2048 sequences of 512 + 114 tokens), bfloat16
compute: millions of cycles of a chip by part (switchx/planning/cycles.py says what each is and how
what carries no estimate is priced), GB through its memory, and the utilisation that follows,
model FLOPs / (cycles / clock x peak), as if nothing overlapped. Of each model and topology two
meshes, and the first policy of remat that fits. One line of JSON per program goes to --out;
finished ones are not compiled again.

    python scripts/tpu_step.py                          # four models, two topologies, two meshes
    python scripts/tpu_step.py --models t5_base switch_base_128 --topologies v5e-256
    python scripts/tpu_step.py --models t5_base --gin.ModelConfig.scan=False --costliest 20

Needs the extra `plan` (libtpu). A program takes one to ten minutes.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from switchx.planning import environment

environment.prepare()

from switchx.cli.flags import rewrite_gin_flags
from switchx.data.tasks.names import NO_TASK
from switchx.planning.cycles import PARTS, Cost, costliest, costs, total
from switchx.planning.devices import compile_only_devices
from switchx.planning.flops import count_flops
from switchx.planning.hlo import Program
from switchx.planning.memory import Refusal
from switchx.planning.plan import compiled
from switchx.planning.topology import Topology, parse
from switchx.settings import Request, load, read_flag
from switchx.sharding import make_mesh
from switchx.training.config import RunConfig
from switchx.training.state import Setup
from switchx.training.step import lower_train_step

MODELS = ("t5_base", "t5_large", "switch_base_128", "switch_large_128")
TOPOLOGIES = ("v5e-256", "v5p-128")
BATCH, GROUPS = 2048, {"ENCODER_GROUP_SIZE": 4096, "DECODER_GROUP_SIZE": 912}
REMATS = ("none", "dots", "full")
KEPT = 60  # costliest instructions of each program that --out keeps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="files of configs/models/")
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--meshes", nargs="+", type=int, default=[0, 1], help="0, 1 or both")
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences")
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--costliest", type=int, default=0, help="instructions to show of each")
    parser.add_argument("--out", type=Path, default=Path("runs/tpu_step.jsonl"))
    args = parser.parse_args(rewrite_gin_flags(sys.argv[1:]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(args.out)
    shown = []
    for case in cases(args):
        record = next((r for r in done if case.items() <= r.items()), None)
        if record is None:
            print(f"compiling {case}", file=sys.stderr, flush=True)
            record = case | measured(**case)
            with args.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
        shown.append(record)
    print(table(shown))
    for record in shown if args.costliest else []:
        print(f"\n{record['model']}, {record['topology']}, {record['settings']}")
        for row in record["costliest"][: args.costliest]:
            print("  {:>8.3f} M  {:>4} x  {:<10} {}  {}".format(row[0] / 1e6, *row[1:]))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cases(args: argparse.Namespace) -> Iterator[dict]:
    given = {each.target: each.value for each in map(read_flag, args.gin_bindings)}
    for model, topology in itertools.product(args.models, args.topologies):
        for mesh in args.meshes:
            chosen = meshes(model, parse(topology))[mesh]
            yield {
                "model": model,
                "topology": topology,
                "settings": {"BATCH_SIZE": args.batch, **chosen, **given},
            }


def meshes(model: str, topology: Topology) -> list[dict[str, Any]]:
    """Two that a careful user would try; what does not fit the one usually fits the other."""
    chips = topology.num_chips
    if model.startswith("t5"):
        return [{"MESH_DATA": chips}, {"MESH_DATA": chips, "FULLY_SHARDED": True}]
    wide, narrow = min(chips, 128), 16
    return [
        GROUPS | {"MESH_EXPERT": wide, "MESH_DATA": chips // wide},
        GROUPS | {"MESH_EXPERT": narrow, "MESH_DATA": chips // narrow, "FULLY_SHARDED": True},
    ]


def measured(model: str, topology: str, settings: dict[str, Any]) -> dict:
    """What a program costs on each chip, with the first policy of remat that it fits with."""
    where = parse(topology)
    assert where.chip is not None
    policies = [settings["REMAT"]] if "REMAT" in settings else REMATS
    for remat in policies:
        start = time.monotonic()
        setup = set_up(run_of(model, settings | {"REMAT": remat}), where)
        program = compiled(lower_train_step(setup))
        if not isinstance(program, Refusal):
            break
        print(f"  REMAT={remat!r} does not fit", file=sys.stderr, flush=True)
    else:
        return {"fits": False}
    axes, seconds = dict(setup.mesh.shape), time.monotonic() - start
    text = Program(program.as_text() or "")
    flops, memory = count_flops(setup), program.memory_analysis()
    return {
        "fits": True,
        "remat": remat,
        "parts": {part: vars(cost) for part, cost in costs(text, axes, where.chip).items()},
        "model_flops": flops.model / where.num_chips,
        "executed_flops": flops.executed / where.num_chips,
        "memory": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "compile_seconds": seconds,
        "costliest": costliest(text, where.chip)[:KEPT],
    }


def run_of(model: str, settings: dict[str, Any]) -> RunConfig:
    """The model's run with these settings, as gin would have them."""
    flags = tuple(read_flag(f"{name}={value!r}") for name, value in settings.items())
    defaults = {"MIXTURE_OR_TASK_NAME": NO_TASK, "TRAIN_STEPS": 1}
    return load(Request((f"configs/models/{model}.gin",), flags), defaults=defaults).run


def set_up(run: RunConfig, topology: Topology) -> Setup:
    return Setup.of(run, make_mesh(run.mesh, compile_only_devices(topology)))


def table(records: list[dict]) -> str:
    """Millions of cycles of each part; the ratio is to the first dense model of the same name."""
    head = ["model", "chips", "mesh", *PARTS, "together", "not estimated", "GB", "ms", "utilised"]
    lines = [head, ["---"] * len(head)]
    for r in records:
        chip = parse(r["topology"]).chip
        assert chip is not None
        cells = [r["model"], r["topology"], mesh_text(r)]
        if not r["fits"]:
            lines.append([*cells, "does not fit"])
            continue
        parts = {part: Cost(**values) for part, values in r["parts"].items()}
        whole = total(parts.values())
        seconds = whole.total / chip.clock
        cells += [f"{cost.total / 1e6:.1f}" for cost in parts.values()]
        cells += [f"{whole.total / 1e6:.1f}", f"{whole.priced / 1e6:.1f}"]
        used = r["model_flops"] / (seconds * chip.peak_flops("bfloat16"))
        lines.append([*cells, f"{whole.bytes / 1e9:.1f}", f"{seconds * 1e3:.1f}", f"{used:.1%}"])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def mesh_text(record: dict) -> str:
    given = record["settings"]
    named = {"data": "MESH_DATA", "expert": "MESH_EXPERT"}
    words = [f"{axis} {given[name]}" for axis, name in named.items() if name in given]
    words += ["fully sharded"] if given.get("FULLY_SHARDED") else []
    usual = {*GROUPS, *named.values(), "FULLY_SHARDED", "BATCH_SIZE", "REMAT"}
    words += [f"{name}={value}" for name, value in given.items() if name not in usual]
    words += [f"remat {record['remat']}"] if record.get("remat", "none") != "none" else []
    return ", ".join(words)


if __name__ == "__main__":
    main()
