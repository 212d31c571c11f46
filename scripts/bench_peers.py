#!/usr/bin/env python
"""Times our training step beside that of Hugging Face transformers, in turn, in one run on CPUs.

The models and batches of bench_step.py: an encoder-decoder with dropout 0.1, float32, Adafactor,
512 inputs and 114 targets; switch layers every other layer, capacity factor 1.25. transformers has
its best settings: each of its attention implementations, and torch.compile, is a form of its own,
and the fastest is compared with. Every form runs in a process of its own, several rounds of all;
medians and their ratios are shown, and the most memory that the process had.

    python scripts/bench_peers.py                                # dense, 8 and 32 experts
    python scripts/bench_peers.py --experts 0 --forms switchx eager --rounds 3
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

from bench_step import SIZES, STEPS, VOCABULARY, Case, in_process_of_its_own, peak_bytes

OURS = "switchx"
# Of transformers: the attention implementation, and whether torch.compile makes the step's forward.
PEERS = {
    "eager": ("eager", False),
    "sdpa": ("sdpa", False),
    "eager, compiled": ("eager", True),
    "sdpa, compiled": ("sdpa", True),
}
CAPACITY_FACTOR = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[0, 8, 32], help="0 is dense")
    parser.add_argument("--forms", nargs="+", choices=[OURS, *PEERS], default=[OURS, *PEERS])
    parser.add_argument("--size", default="laptop", choices=SIZES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        form, case = args.measure
        print(json.dumps(measure(Case(**json.loads(case)), *PEERS[form])))
        return
    print(header())
    for experts in args.experts:
        case = Case(experts, size=args.size, batch=args.batch)
        show(experts, in_turn(case, args.forms, args.rounds))


def in_turn(case: Case, forms: list[str], rounds: int) -> dict[str, dict]:
    """The medians of each form over the rounds; none of a form that does not run."""
    results: dict[str, list[dict]] = {form: [] for form in forms}
    for number in range(rounds):
        for form in list(results):
            print(f"{case.experts} experts, round {number + 1}: {form}", file=sys.stderr)
            try:
                found = in_process_of_its_own(case) if form == OURS else of_peer(form, case)
            except subprocess.CalledProcessError as error:
                print(f"{form} does not run: {last_line(error)}", file=sys.stderr)
                del results[form]
                continue
            results[form].append(found)
    return {
        form: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for form, runs in results.items()
    }


def of_peer(form: str, case: Case) -> dict:
    """What `measure` returns, from a process of its own."""
    command = [sys.executable, __file__, "--measure", form, json.dumps(dataclasses.asdict(case))]
    # What `switchx train` sets for itself is the peer's too.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ}
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def last_line(error: subprocess.CalledProcessError) -> str:
    return (error.stderr or f"status {error.returncode}").strip().splitlines()[-1][:160]


def measure(case: Case, attention: str, compiled: bool) -> dict:
    """Medians of one process of transformers: seconds per step, and the most memory."""
    import torch
    from transformers.optimization import Adafactor

    torch.manual_seed(0)
    model = model_of(case, attention)
    model.train()
    # As T5 was trained: relative steps, parameter scaling, no first moment.
    optimizer = Adafactor(model.parameters(), warmup_init=True)
    forward = torch.compile(model) if compiled else model
    batch = random_batch(case)
    seconds = []
    for _ in range(STEPS + 1):  # the first two compile
        began = time.perf_counter()
        optimizer.zero_grad()
        forward(**batch).loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return {"seconds": statistics.median(seconds[2:]), "peak_bytes": peak_bytes()}


def model_of(case: Case, attention: str):
    """The model of transformers that is like the one of a case."""
    import transformers

    sizes, (inputs, _), _ = SIZES[case.size]
    shared = dict(
        sizes,
        vocab_size=VOCABULARY,
        d_kv=64,
        dropout_rate=0.1,
        use_cache=False,
        decoder_start_token_id=0,
    )
    if not case.experts:
        config = transformers.T5Config(**shared)
        return transformers.T5ForConditionalGeneration._from_config(
            config, attn_implementation=attention
        )
    config = transformers.SwitchTransformersConfig(
        **shared,
        num_experts=case.experts,
        # Of a sequence: it has one for both stacks, and the encoder's is most of the work.
        expert_capacity=int(CAPACITY_FACTOR * inputs / case.experts),
        num_sparse_encoder_layers=sizes["num_layers"] // 2,
        num_decoder_layers=sizes["num_layers"],
        num_sparse_decoder_layers=sizes["num_layers"] // 2,
    )
    return transformers.SwitchTransformersForConditionalGeneration._from_config(
        config, attn_implementation=attention
    )


def random_batch(case: Case) -> dict:
    """Of the lengths of bench_step.py's, without padding."""
    import torch

    _, (inputs, targets), _ = SIZES[case.size]
    return {
        "input_ids": torch.randint(3, 32100, (case.batch, inputs)),
        "labels": torch.randint(3, 32100, (case.batch, targets)),
    }


COLUMNS = ("experts", "form", "s/step", "ours is faster by", "peak GB")


def header() -> str:
    return row(COLUMNS)


def show(experts: int, results: dict[str, dict]) -> None:
    """A line of each form, and which of the peer's is the fastest."""
    ours = results.get(OURS)
    peers = {form: found["seconds"] for form, found in results.items() if form != OURS}
    best = min(peers, key=lambda form: peers[form], default=None)
    for form, found in results.items():
        ratio = f"{found['seconds'] / ours['seconds']:.2f}" if ours else "-"
        name = f"{form} (its best)" if form == best else form
        cells = (f"{found['seconds']:.2f}", ratio, f"{found['peak_bytes'] / 1e9:.2f}")
        print(row((experts or "dense", name, *cells)), flush=True)


def row(cells) -> str:
    widths = (10, 30, 10, 20, 10)
    return "".join(f"{cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True))


if __name__ == "__main__":
    main()
