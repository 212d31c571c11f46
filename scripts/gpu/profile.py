"""The largest costs of a Switch-Base step, from JAX's profiler."""

import os
import tempfile
from pathlib import Path

from gpu.common import arguments, write

STEPS = 3


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

    from switchx.training.profile_costs import STEP, Costs

    state, _ = step(state, batch)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for number in range(STEPS):
                with jax.profiler.StepTraceAnnotation(STEP, step_num=number):
                    state, _ = step(state, batch)
            jax.block_until_ready(state)
        (trace,) = Path(folder).rglob("*.xplane.pb")
        found = Costs.read(trace, step.program(), jax.local_device_count())
    whole = sum(map(sum, found.parts.values()))
    return [
        {
            "operation": operation,
            "part": part,
            "milliseconds": seconds * 1e3,
            "share": seconds / whole,
            "calls": calls,
        }
        for operation, (seconds, calls, part) in found.operations.items()
    ]


if __name__ == "__main__":
    main()
