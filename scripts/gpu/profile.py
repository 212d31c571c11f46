"""The largest costs of a Switch-Base step, from JAX's profiler."""

import collections
import gzip
import json
import os
import tempfile
from pathlib import Path

from gpu.common import arguments, write

STEPS = 3
MOST = 40  # operations that are listed
ENCLOSING = ("while", "call", "conditional")  # whose time is that of the operations within


def main() -> None:
    args = arguments(__doc__)
    if args.platform != "cpu":  # within a graph of kernels the profiler sees no operations
        no_graphs = "--xla_gpu_enable_command_buffer="
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {no_graphs}".strip()
    import bench_step

    size, batch = ("tiny", 8) if args.tiny else ("base", 32)
    found = {}
    for name, experts, dispatcher in [
        ("dense", 0, "index"),
        ("8 experts, index", 8, "index"),
        ("8 experts, ragged", 8, "ragged"),
    ][: 1 if args.tiny else 3]:
        case = bench_step.Case(experts, dispatcher, size, batch, "bfloat16", args.platform)
        found[name] = costs(*bench_step.prepare(case)[:3])
    write(args, "profile", steps=STEPS, costs=found)
    for name, rows in found.items():
        print(name)
        for row in rows[:15]:
            print(f"  {row['milliseconds']:9.3f} ms  {row['share']:6.1%}  {row['operation']}")


def costs(step, state, batch) -> list[dict]:
    """Milliseconds of a step by operation, the largest first."""
    import jax

    state, _ = step(state, batch)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = step(state, batch)
            jax.block_until_ready(state)
        (trace,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return largest(events)


def largest(events: list[dict]) -> list[dict]:
    """The operations of a Chrome trace by their time, summed over their calls."""
    total: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    ran = [event for event in events if event.get("ph") == "X"]
    of_xla = [event for event in ran if "hlo_op" in event.get("args", {})]
    for event in of_xla or [event for event in ran if event["pid"] in devices(events)]:
        operation = event.get("args", {}).get("hlo_op", event["name"])
        if operation.split(".")[0] in ENCLOSING:
            continue
        total[operation] += event["dur"]
        calls[operation] += 1
    whole = sum(total.values())
    return [
        {
            "operation": operation,
            "milliseconds": microseconds / 1e3 / STEPS,
            "share": microseconds / whole,
            "calls": calls[operation] / STEPS,
        }
        for operation, microseconds in total.most_common(MOST)
    ]


def devices(events: list[dict]) -> set[int]:
    """The processes of a trace that are accelerators."""
    named = [event for event in events if event.get("name") == "process_name"]
    return {event["pid"] for event in named if "/device:" in event["args"]["name"]}


if __name__ == "__main__":
    main()
