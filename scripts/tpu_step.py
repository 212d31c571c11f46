#!/usr/bin/env python
"""Compiles whole training steps for TPUs, without having one, and counts what they would do.

The step that training runs, at the paper's batch (2048 sequences of 512 + 114 tokens), bfloat16
compute: millions of cycles of a chip by part (switchx/planning/cycles.py says what each is and how
what carries no estimate is priced), GB through its memory, and the utilisation that follows,
model FLOPs / (cycles / clock x peak), as if nothing overlapped. Of each model and topology two
meshes, and the first policy of remat that fits. Programs stay in --out, and are counted again at
every call without being compiled again.

    python scripts/tpu_step.py                          # four models, two topologies, two meshes
    python scripts/tpu_step.py --models t5_base switch_base_128 --topologies v5e-256
    python scripts/tpu_step.py --models t5_base --gin.ModelConfig.scan=False --costliest 20

Needs the extra `plan` (libtpu). A program takes one to ten minutes.
"""

import argparse
import gzip
import hashlib
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
from switchx.planning.cycles import PARTS, costliest, costs, total
from switchx.planning.devices import compile_only_devices
from switchx.planning.flops import count_flops
from switchx.planning.memory import Refusal
from switchx.planning.network import Network
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="files of configs/models/")
    parser.add_argument("--topologies", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--meshes", nargs="+", type=int, default=[0, 1], help="0, 1 or both")
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences")
    parser.add_argument("--gin_bindings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--costliest", type=int, default=0, help="instructions to show of each")
    parser.add_argument("--out", type=Path, default=Path("runs/tpu_step"))
    args = parser.parse_args(rewrite_gin_flags(sys.argv[1:]))
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [counted(case, args.out) for case in cases(args)]
    print(table(rows))
    for each in rows if args.costliest else []:
        print(f"\n{each['model']}, {each['topology']}, {mesh_text(each)}")
        for cycles, *row in each.get("costliest", ())[: args.costliest]:
            print("  {:>8.3f} M  {:>4} x  {:<10} {}  {}".format(cycles / 1e6, *row))


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
    experts = min(chips, 128)
    wide = GROUPS | {"MESH_EXPERT": experts, "MESH_DATA": chips // experts}
    return [wide, wide | {"FULLY_SHARDED": True}]


def counted(case: dict, folder: Path) -> dict:
    """A case, what is known of its program, and what that costs on each chip."""
    name = hashlib.sha256(json.dumps(case).encode()).hexdigest()[:12]
    known, program = folder / f"{name}.json", folder / f"{name}.txt.gz"
    if not known.exists():
        print(f"compiling {case}", file=sys.stderr, flush=True)
        found, text = compile_case(**case)
        program.write_bytes(gzip.compress(text.encode()))
        known.write_text(json.dumps(case | found))
    found = json.loads(known.read_text())
    if not found["fits"]:
        return found
    topology, text = parse(case["topology"]), gzip.decompress(program.read_bytes()).decode()
    assert topology.chip is not None
    mesh = make_mesh(run_of(case["model"], case["settings"]).mesh, compile_only_devices(topology))
    parts = costs(text, topology.chip, Network.of(mesh, topology))
    return found | {"parts": parts, "costliest": costliest(text, topology.chip)}


def compile_case(model: str, topology: str, settings: dict[str, Any]) -> tuple[dict, str]:
    """A program with the first policy of remat that it fits with: what is known, and its text."""
    where = parse(topology)
    policies = [settings["REMAT"]] if "REMAT" in settings else REMATS
    for remat in policies:
        start = time.monotonic()
        run = run_of(model, settings | {"REMAT": remat})
        setup = Setup.of(run, make_mesh(run.mesh, compile_only_devices(where)))
        program = compiled(lower_train_step(setup), where)
        if not isinstance(program, Refusal):
            break
        print(f"  REMAT={remat!r} does not fit", file=sys.stderr, flush=True)
    else:
        return {"fits": False}, ""
    seconds = time.monotonic() - start
    flops, memory = count_flops(setup), program.memory_analysis()
    return {
        "fits": True,
        "remat": remat,
        "model_flops": flops.model / where.num_chips,
        "executed_flops": flops.executed / where.num_chips,
        "memory": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "compile_seconds": round(seconds),
    }, program.as_text() or ""


def run_of(model: str, settings: dict[str, Any]) -> RunConfig:
    """The model's run with these settings, as gin would have them."""
    flags = tuple(read_flag(f"{name}={value!r}") for name, value in settings.items())
    defaults = {"MIXTURE_OR_TASK_NAME": NO_TASK, "TRAIN_STEPS": 1}
    return load(Request((f"configs/models/{model}.gin",), flags), defaults=defaults).run


def table(records: list[dict]) -> str:
    """Millions of cycles of each part."""
    head = ["model", "chips", "mesh", *PARTS, "together", "not estimated", "GB", "ms", "utilised"]
    lines = [head, ["---"] * len(head)]
    for r in records:
        chip = parse(r["topology"]).chip
        assert chip is not None
        cells = [r["model"], r["topology"], mesh_text(r)]
        if not r["fits"]:
            lines.append([*cells, "does not fit"])
            continue
        parts = r["parts"]
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
