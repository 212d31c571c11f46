#!/usr/bin/env python
"""Times the training step of a dense and of switch models against the machine's matrix products.

Encoder-decoder with dropout 0.1 and Adafactor; switch layers every other layer, capacity 1.25.
`--size=laptop`: d_model 256, d_ff 1024, 4 heads of 64, 4 + 4 layers; `--size=base`: T5-Base and
Switch-Base. Every model runs in a process of its own (so peak memory is its own), in turn, several
rounds; the rate of a plain matrix product of the same dtype is measured in the same process
between steps.

    python scripts/bench_step.py                     # dense, 8 and 32 experts
    python scripts/bench_step.py --experts 0 8 --dispatcher einsum --rounds 3
    python scripts/bench_step.py --platform cuda --size base --dtype bfloat16 --batch 32
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time

STEPS, PRODUCTS = 7, 3
VOCABULARY = 32128
# Sizes of the model, then the lengths of its inputs and targets and of a product to compare with.
SIZES = {
    "laptop": (dict(d_model=256, d_ff=1024, num_heads=4, num_layers=4), (512, 114), 2048),
    "base": (dict(d_model=768, d_ff=3072, num_heads=12, num_layers=12), (512, 114), 8192),
    "tiny": (dict(d_model=32, d_ff=64, num_heads=2, num_layers=2), (32, 16), 256),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its batch; 0 experts are the dense model."""

    experts: int
    dispatcher: str = "index"
    size: str = "laptop"
    batch: int = 8
    dtype: str = "float32"
    platform: str = "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[0, 8, 32], help="0 is dense")
    parser.add_argument("--dispatcher", default="index", choices=("einsum", "index", "ragged"))
    parser.add_argument("--size", default="laptop", choices=SIZES)
    parser.add_argument("--batch", type=int, default=8, help="a multiple of 8")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--platform", default="cpu", help="as JAX_PLATFORMS")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(Case(**json.loads(args.measure)))))
        return
    shared = (args.dispatcher, args.size, args.batch, args.dtype, args.platform)
    results: dict[int, list[dict]] = {experts: [] for experts in args.experts}
    for number in range(args.rounds):
        for experts in args.experts:
            print(f"round {number + 1} of {args.rounds}: {experts} experts", file=sys.stderr)
            results[experts].append(in_process_of_its_own(Case(experts, *shared)))
    show({experts: merge(runs) for experts, runs in results.items()})


def in_process_of_its_own(case: Case) -> dict:
    """What `measure` returns.

    Raises:
      subprocess.CalledProcessError: the process failed; its last words went to stderr.
    """
    command = [sys.executable, __file__, "--measure", json.dumps(dataclasses.asdict(case))]
    # As `switchx train` sets it (switchx/cli/environment.py).
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ}
    environment["JAX_PLATFORMS"] = case.platform
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def measure(case: Case) -> dict:
    """Medians of one process: seconds per step, rate of a matrix product, compile time, memory."""
    import jax

    from switchx.model import train_flops

    step, state, batch, run, compiled = prepare(case)
    seconds, rates = [], []
    for _ in range(STEPS):
        began = time.perf_counter()
        state, _metrics = step(state, batch)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        rates.append(matmul_rate(SIZES[case.size][2], case.dtype))
    shape = run.batch
    flops = train_flops(run.model, shape.input_length, shape.target_length) * shape.batch_size
    return {
        "seconds": statistics.median(seconds[1:]),
        "matmul_rate": statistics.median(rates),
        "flops": flops,
        "compile_seconds": compiled,
        "peak_bytes": peak_bytes(),
    }


def prepare(case: Case) -> tuple:
    """The compiled step, its first state, a batch, the run's config, and how long it compiled."""
    from switchx.sharding import make_mesh
    from switchx.training.batches import put_batch
    from switchx.training.state import Setup
    from switchx.training.step import compile_train_step

    run = run_config(case)
    setup = Setup.of(run, make_mesh(run.mesh))
    began = time.perf_counter()
    step = compile_train_step(setup)
    compiled = time.perf_counter() - began
    return step, setup.init(), put_batch(random_batch(case), setup), run, compiled


def peak_bytes() -> int:
    """The most that the accelerator held; of a CPU, the most that this process had."""
    import jax

    held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return held or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matmul_rate(n: int, dtype: str = "float32") -> float:
    """FLOP/s of products of n x n random matrices (a GPU is faster with constant ones)."""
    import jax
    import jax.numpy as jnp

    x_NN = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(jnp.matmul)
    product(x_NN, x_NN).block_until_ready()
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        last = product(x_NN, x_NN)
    last.block_until_ready()
    return PRODUCTS * 2 * n**3 / (time.perf_counter() - began)


def run_config(case: Case):
    from switchx.model import ModelConfig, SwitchConfig
    from switchx.sharding import MeshConfig
    from switchx.training import BatchShape, OptimizerConfig, RunConfig, TrainerConfig

    sizes, (inputs, targets), _ = SIZES[case.size]
    switch = None
    if case.experts:
        switch = SwitchConfig(
            case.experts,
            dispatcher=case.dispatcher,
            encoder_group_size=min(4096, case.batch * inputs),
            decoder_group_size=min(912, case.batch * targets),
        )
    model = ModelConfig(
        vocab_size=VOCABULARY, d_kv=64, dropout_rate=0.1, dtype=case.dtype, switch=switch, **sizes
    )
    shape = BatchShape(case.batch, inputs, targets)
    return RunConfig(model, shape, shape, TrainerConfig(1000), OptimizerConfig(), MeshConfig())


def random_batch(case: Case):
    import numpy as np

    rng = np.random.default_rng(0)
    _, (inputs, targets), _ = SIZES[case.size]
    tokens = lambda length: rng.integers(3, 32100, (case.batch, length)).astype(np.int32)  # noqa: E731
    return {
        "encoder_input_tokens": tokens(inputs),
        "decoder_input_tokens": tokens(targets),
        "decoder_target_tokens": tokens(targets),
        "decoder_loss_weights": np.ones((case.batch, targets), np.float32),
    }


def merge(runs: list[dict]) -> dict:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def show(results: dict[int, dict]) -> None:
    dense = results.get(0)
    header = ("experts", "s/step", "x dense", "GFLOP/s", "matmul GFLOP/s", "share", "peak GB",
              "compile s")  # fmt: skip
    print("".join(f"{name:>16}" for name in header))
    for experts, r in results.items():
        rate = r["flops"] / r["seconds"]
        ratio = f"{r['seconds'] / dense['seconds']:.2f}" if dense else "-"
        cells = (
            experts or "dense",
            f"{r['seconds']:.2f}",
            ratio,
            f"{rate / 1e9:.0f}",
            f"{r['matmul_rate'] / 1e9:.0f}",
            f"{rate / r['matmul_rate']:.2f}",
            f"{r['peak_bytes'] / 1e9:.2f}",
            f"{r['compile_seconds']:.1f}",
        )
        print("".join(f"{cell!s:>16}" for cell in cells))


if __name__ == "__main__":
    main()
