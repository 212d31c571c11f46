#!/usr/bin/env python
"""Times the training step of a dense and of switch models against the machine's matrix products.

Encoder-decoder of d_model 256, d_ff 1024, 4 heads of 64, 4 + 4 layers, vocabulary 32128, batch 8,
lengths 512 and 114, dropout 0.1, float32, Adafactor; switch layers every other layer, capacity
1.25. Every model runs in a process of its own (so peak memory is its own), in turn, several
rounds; the rate of a plain float32 matrix product is measured in the same process between steps.

    python scripts/bench_step.py                     # dense, 8 and 32 experts
    python scripts/bench_step.py --experts 0 8 --dispatcher einsum --rounds 3
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

STEPS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[0, 8, 32], help="0 is dense")
    parser.add_argument("--dispatcher", default="index", choices=("einsum", "index", "ragged"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args.measure, args.dispatcher)))
        return
    results: dict[int, list[dict]] = {experts: [] for experts in args.experts}
    for number in range(args.rounds):
        for experts in args.experts:
            print(f"round {number + 1} of {args.rounds}: {experts} experts", file=sys.stderr)
            results[experts].append(in_process_of_its_own(experts, args.dispatcher))
    show({experts: merge(runs) for experts, runs in results.items()})


def in_process_of_its_own(experts: int, dispatcher: str) -> dict:
    command = [sys.executable, __file__, "--measure", str(experts), "--dispatcher", dispatcher]
    # As `switchx train` sets it (switchx/cli/environment.py).
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ, "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def measure(experts: int, dispatcher: str) -> dict:
    """Medians of one process: seconds per step, rate of a matrix product, compile time, memory."""
    import jax

    from switchx.model import train_flops
    from switchx.sharding import make_mesh
    from switchx.training.batches import put_batch
    from switchx.training.state import Setup
    from switchx.training.step import compile_train_step

    run = run_config(experts, dispatcher)
    setup = Setup.of(run, make_mesh(run.mesh))
    began = time.perf_counter()
    step = compile_train_step(setup)
    compiled = time.perf_counter() - began
    state, batch = setup.init(), put_batch(random_batch(), setup)
    seconds, rates = [], []
    for _ in range(STEPS):
        began = time.perf_counter()
        state, _metrics = step(state, batch)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        rates.append(matmul_rate())
    shape = run.batch
    flops = train_flops(run.model, shape.input_length, shape.target_length) * shape.batch_size
    return {
        "seconds": statistics.median(seconds[1:]),
        "matmul_rate": statistics.median(rates),
        "flops": flops,
        "compile_seconds": compiled,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def matmul_rate(n: int = 2048) -> float:
    """FLOP/s of one float32 product of n x n matrices, after one that is not counted."""
    import jax
    import jax.numpy as jnp

    x_NN = jnp.full((n, n), 0.5)
    product = jax.jit(jnp.matmul)
    product(x_NN, x_NN).block_until_ready()
    began = time.perf_counter()
    product(x_NN, x_NN).block_until_ready()
    return 2 * n**3 / (time.perf_counter() - began)


def run_config(experts: int, dispatcher: str):
    from switchx.model import ModelConfig, SwitchConfig
    from switchx.sharding import MeshConfig
    from switchx.training import BatchShape, OptimizerConfig, RunConfig, TrainerConfig

    switch = SwitchConfig(experts, dispatcher=dispatcher) if experts else None
    model = ModelConfig(
        vocab_size=32128,
        d_model=256,
        d_ff=1024,
        d_kv=64,
        num_heads=4,
        num_layers=4,
        dropout_rate=0.1,
        dtype="float32",
        switch=switch,
    )
    shape = BatchShape(8, 512, 114)
    return RunConfig(model, shape, shape, TrainerConfig(1000), OptimizerConfig(), MeshConfig())


def random_batch():
    import numpy as np

    rng = np.random.default_rng(0)
    tokens = lambda length: rng.integers(3, 32100, (8, length)).astype(np.int32)  # noqa: E731
    return {
        "encoder_input_tokens": tokens(512),
        "decoder_input_tokens": tokens(114),
        "decoder_target_tokens": tokens(114),
        "decoder_loss_weights": np.ones((8, 114), np.float32),
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
