#!/usr/bin/env python
"""Times the switch layer alone, forward and backward, against the equal-FLOPs dense feed-forward.

Router, dispatch, experts and combine with the gradients of all parameters and of the input, top-1
at capacity 1.25, the layer's own initialization. Every variant, the dense layer and a plain matrix
product run in turn in one process, so that what else the machine does falls on all alike; the
figures are medians over the rounds of each round's ratio. Memory is allocated as `switchx train`
has it (switchx/cli/environment.py).

    python scripts/bench_layer.py       # every dispatcher at 8, 32 and 128 experts
    python scripts/bench_layer.py --experts 8 --group_size 626 5008 --d_model 256 512
"""

import argparse
import itertools
import os
import statistics
import sys
import time

from switchx.cli.environment import restart_with_huge_pages

os.environ.setdefault("JAX_PLATFORMS", "cpu")

CAPACITY_FACTOR = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[5008])
    parser.add_argument("--d_model", type=int, nargs="+", default=[256])
    parser.add_argument("--d_ff", type=int, nargs="+", default=[1024])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--group_size", type=int, nargs="+", help="(default: all tokens)")
    parser.add_argument("--dispatcher", nargs="+", default=["index", "ragged", "einsum"])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    restart_with_huge_pages()
    print(
        "| tokens | d_model | d_ff | experts | group | dispatcher | ms | x dense | matrix rate |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    grid = itertools.product(args.tokens, args.d_model, args.d_ff, args.experts)
    for tokens, d_model, d_ff, experts in grid:
        sizes = args.group_size or [tokens]
        cases = list(itertools.product([experts], sizes, args.dispatcher))
        # A hundred experts' one-hot arrays of thousands of slots do not fit a laptop.
        cases = [c for c in cases if c[2] != "einsum" or c[1] <= 1252 or c[0] <= 8]
        for row in compare(tokens, d_model, d_ff, cases, args.dtype, args.rounds):
            print(
                f"| {tokens} | {d_model} | {d_ff} | {row['experts']} | {row['group']} "
                f"| {row['dispatcher']} | {row['milliseconds']:.0f} | {row['x_dense']:.2f} "
                f"| {row['share_of_matmul_rate']:.2f} |",
                flush=True,
            )


def compare(
    tokens: int,
    d_model: int,
    d_ff: int,
    cases: list[tuple],
    dtype: str,
    rounds: int,
    product_size: int = 2048,
) -> list[dict]:
    """A row for the dense layer and one for each (experts, group size, dispatcher)."""
    flops = 3 * 2 * 2 * tokens * d_model * d_ff
    runs = {None: dense(tokens, d_model, d_ff, dtype)}
    for case in cases:
        print(f"\rcompiling {case}", end="", file=sys.stderr)
        runs[case] = switch(tokens, d_model, d_ff, *case, dtype)
    product, product_flops = matrix_product(dtype, product_size)
    seconds: dict = {case: [] for case in [*runs, "product"]}
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}        ", end="", file=sys.stderr)
        for case, run in runs.items():
            seconds[case].append(timed(run))
        seconds["product"].append(timed(product))
    print("\r", end="", file=sys.stderr)
    rate = [product_flops / s for s in seconds["product"]]
    rows = []
    for case in runs:
        ratio = statistics.median(s / d for s, d in zip(seconds[case], seconds[None], strict=True))
        share = statistics.median(flops / s / r for s, r in zip(seconds[case], rate, strict=True))
        experts, group, dispatcher = case or ("-", "-", "dense")
        rows.append(
            {
                "experts": experts,
                "group": group,
                "dispatcher": dispatcher,
                "milliseconds": statistics.median(seconds[case]) * 1e3,
                "x_dense": ratio,
                "share_of_matmul_rate": share,
            }
        )
    return rows


def timed(run) -> float:
    import jax

    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def switch(
    tokens: int,
    d_model: int,
    d_ff: int,
    experts: int,
    group_size: int,
    dispatcher: str,
    dtype: str,
):
    """A function that runs the compiled layer once, forward and backward."""
    import jax.numpy as jnp
    from flax import nnx

    from switchx.model import NO_NOISE, SwitchConfig
    from switchx.model.experts import experts_of
    from switchx.model.switch_layer import Grouping, SwitchLayer

    settings = SwitchConfig(
        experts,
        train_capacity_factor=CAPACITY_FACTOR,
        min_capacity=1,
        encoder_group_size=group_size,
        jitter=0.0,
        dispatcher=dispatcher,
    )
    config = model_config(d_model, d_ff, dtype, settings)
    rngs = nnx.Rngs(params=0)
    layer = SwitchLayer(config, settings, experts_of(config, rngs), rngs)
    grouping = Grouping.of(settings, causal=False, train=True)

    def apply(layer, x_BLD):
        y_BLD, routed = layer(x_BLD, jnp.ones(x_BLD.shape[:2], bool), grouping, NO_NOISE)
        return y_BLD, 1e-2 * routed.stats.balance_loss

    return compiled(layer, apply, tokens, d_model, dtype)


def dense(tokens: int, d_model: int, d_ff: int, dtype: str):
    from flax import nnx

    from switchx.model import NO_NOISE
    from switchx.model.layers import FeedForward

    layer = FeedForward(model_config(d_model, d_ff, dtype, None), nnx.Rngs(params=0))
    return compiled(
        layer, lambda layer, x_BLD: (layer(x_BLD, NO_NOISE), 0.0), tokens, d_model, dtype
    )


def model_config(d_model: int, d_ff: int, dtype: str, switch):
    from switchx.model import ModelConfig

    return ModelConfig(
        vocab_size=32,
        d_model=d_model,
        d_ff=d_ff,
        d_kv=64,
        num_heads=4,
        num_layers=2,
        dtype=dtype,
        switch=switch,
    )


def compiled(layer, apply, tokens: int, d_model: int, dtype: str):
    import jax
    import jax.numpy as jnp
    from flax import nnx

    graphdef, state = nnx.split(layer)
    x_BLD, dy_BLD = jax.random.normal(jax.random.key(0), (2, 1, tokens, d_model), dtype)

    def loss(state, x_BLD, dy_BLD):
        y_BLD, extra = apply(nnx.merge(graphdef, state), x_BLD)
        return jnp.sum((y_BLD * dy_BLD).astype(jnp.float32)) + extra

    program = (
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(state, x_BLD, dy_BLD).compile()
    )
    run = lambda: program(state, x_BLD, dy_BLD)  # noqa: E731
    timed(run)
    return run


def matrix_product(dtype: str, n: int):
    import jax
    import jax.numpy as jnp

    x_NN = jax.random.normal(jax.random.key(0), (n, n), dtype)
    product = jax.jit(jnp.matmul).lower(x_NN, x_NN).compile()
    return (lambda: product(x_NN, x_NN)), 2 * n**3


if __name__ == "__main__":
    main()
