#!/usr/bin/env python
"""Times `switchx.inference.predict` against one padded batch shape and against transformers.

All answer the same inputs of mixed lengths, with the same random weights, greedily and with a beam
of 4, in one process: `predict`; the same search on batches padded to the longest input of all;
transformers' `generate` on batches padded to their own longest, in the order given. The row of the
logits' matrix that is the end of sequence is scaled until answers end all over their range.

What is compared is CPU time, of all threads, which neighbours on a shared machine disturb less than
the clock; both are printed. Programs are compiled before, and the seconds that took are told.
First it says what a step costs: the FLOPs and bytes that a place in the batch needs at the least.

    python scripts/bench_decoding.py                                # 2,000 inputs, both methods
    python scripts/bench_decoding.py --model switch --size t5_small --inputs 200 --methods greedy
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import torch
import transformers

from switchx.inference import DecodingConfig, beam_search, greedy, predict
from switchx.inference.batches import in_batches, padded
from switchx.interop.hf import open_source
from switchx.model import Model, ModelConfig, Params

EOS, BEAMS = 1, 4
SIZES = {
    "small": dict(d_model=256, d_ff=1024, num_heads=4, num_layers=4, vocab_size=8192),
    "t5_small": dict(d_model=512, d_ff=2048, num_heads=8, num_layers=6, vocab_size=32128),
    "tiny": dict(d_model=32, d_ff=64, num_heads=2, num_layers=2, vocab_size=64),
}
Answers = list[list[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="t5", choices=("t5", "switch"), help="8 experts")
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--input_length", type=int, default=512, help="of the longest")
    parser.add_argument("--length", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=["greedy", "beam"])
    parser.add_argument("--eos_scale", type=float, default=3.0)
    parser.add_argument("--without", nargs="+", default=[], choices=("padded", "transformers"))
    args = parser.parse_args()
    peer = peer_model(args.model, SIZES[args.size], args.input_length, args.eos_scale)
    model, params = ours(peer)
    rows = inputs(args.inputs, args.input_length, model.config.vocab_size)
    tokens = sum(map(len, rows))
    print(f"{len(rows)} inputs of {tokens / len(rows):.0f} tokens on average", flush=True)
    describe_step(model.config, tokens // len(rows), args.length // 2, args.batch_size)
    for method in args.methods:
        compare(method, peer, model, params, rows, args)


def peer_model(kind: str, sizes: dict[str, int], capacity: int, eos_scale: float) -> Any:
    """A model of transformers on random weights whose answers vary with the input."""
    torch.manual_seed(0)
    config = dict(d_kv=64, num_decoder_layers=sizes["num_layers"], decoder_start_token_id=0)
    config |= dict(sizes, tie_word_embeddings=False)
    if kind == "t5":
        config = transformers.T5Config(feed_forward_proj="gated-gelu", **config)
        peer = transformers.T5ForConditionalGeneration(config)
        peer.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocab_size, config.d_model))
    else:
        half = sizes["num_layers"] // 2
        config = transformers.SwitchTransformersConfig(
            num_sparse_encoder_layers=half,
            num_sparse_decoder_layers=half,
            num_experts=8,
            expert_capacity=capacity,
            **config,
        )
        peer = transformers.SwitchTransformersForConditionalGeneration(config)
        for stack in (peer.encoder, peer.decoder):
            stack.embed_tokens.weight.data.copy_(peer.shared.weight)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "layer_norm" not in name and "shared" not in name and "embed_tokens" not in name:
                parameter.mul_(2.0)  # with fresh weights the layers hardly matter
        peer.lm_head.weight[EOS] *= eos_scale
    return peer.eval()


def ours(peer: Any) -> tuple[Model, Params]:
    """The same model and weights."""
    with TemporaryDirectory() as folder:
        peer.save_pretrained(Path(folder))
        source = open_source(folder)
        model = Model.of(source.config.__class__(**{**vars(source.config), "dtype": "float32"}))
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), model.shapes
        )
        return model, source.params(shapes)


def inputs(count: int, longest: int, vocabulary: int) -> Answers:
    """Random tokens; lengths as of texts, many short and few long, from a 32nd of the longest."""
    rng = np.random.default_rng(0)
    lengths = longest * 32.0 ** -rng.uniform(0, 1, count)
    lengths[0] = longest
    return [rng.integers(2, vocabulary, int(length)).tolist() for length in lengths]


def describe_step(config: ModelConfig, M: int, L: int, B: int) -> None:
    """What a step needs of a place with M input tokens and L of its answer, on average."""
    D, T, N = config.d_model, config.num_heads * config.d_kv, config.decoder.num_layers
    gates = 3 if config.gated else 2
    weights = N * (6 * D * T + gates * D * config.d_ff) + D * config.vocab_size
    kept = 2 * N * T * (M + L)
    print(
        f"a step of one place: {2 * (weights + kept) / 1e6:.1f} MFLOP; {4 * kept / 1e6:.2f} MB of "
        f"keys and values, and {4 * weights / 1e6:.1f} MB of weights for all {B} places"
    )


def compare(
    method: str, peer: Any, model: Model, params: Params, rows: Answers, args: argparse.Namespace
) -> None:
    decoding = DecodingConfig(
        args.length, method, num_beams=BEAMS, length_penalty=0.0, batch_size=args.batch_size
    )

    def by_predict() -> Answers:
        return list(predict(model, params, rows, decoding, args.input_length, EOS))

    def by_padded(rows: Answers = rows) -> Answers:
        batches = in_batches(rows, args.batch_size)
        padding = (padded(batch, args.batch_size, args.input_length) for batch in batches)
        return _answers((_search(model, params, batch, decoding) for batch in padding), len(rows))

    began = time.perf_counter()
    found = by_predict()
    print(f"{method}: the first time, with compiling: {time.perf_counter() - began:.1f} s")
    lengths = np.array([len(answer) for answer in found])
    quarters = np.percentile(lengths, (25, 50, 75))
    print(f"  answers of {lengths.mean():.1f} tokens, quarters at {quarters}", flush=True)
    (_, cpu), _ = timed("predict", by_predict)
    if "padded" not in args.without:
        by_padded(rows[: args.batch_size])  # compiles
        (_, of_padded), others = timed("padded to one shape", by_padded)
        report("predict takes {:.3f} of its CPU time", cpu / of_padded, found, others)
    if "transformers" not in args.without:
        batches = list(in_batches(rows, args.batch_size))
        generate = lambda: _answers((_theirs(peer, b, args, method) for b in batches), len(rows))  # noqa: E731
        (_, of_theirs), others = timed("transformers' generate", generate)
        report("predict is {:.2f} times as fast", of_theirs / cpu, found, others)


def timed(name: str, run: Callable[[], Answers]) -> tuple[tuple[float, float], Answers]:
    """Seconds by the clock and of CPU time, and the answers."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {name}: {cpu:.1f} s of CPU time, {wall:.1f} s by the clock", flush=True)
    return (wall, cpu), found


def report(text: str, ratio: float, found: Answers, others: Answers) -> None:
    same = sum(a == b for a, b in zip(found, others, strict=True))
    print(f"    {text.format(ratio)}; {same} of {len(found)} answers are the same", flush=True)


def _search(
    model: Model, params: Params, token_BM: np.ndarray, decoding: DecodingConfig
) -> np.ndarray:
    if decoding.method == "greedy":
        return np.asarray(greedy(model, params, token_BM, decoding.length, EOS))
    return np.asarray(
        beam_search(model, params, token_BM, decoding.length, BEAMS, 0.0, EOS)[0][:, 0]
    )


def _theirs(peer: Any, rows: Answers, args: argparse.Namespace, method: str) -> np.ndarray:
    token_BM = torch.tensor(padded(rows, len(rows), max(map(len, rows)))).long()
    settings = dict(num_beams=BEAMS, length_penalty=0.0, early_stopping="never")
    with torch.inference_mode():
        answer_BL = peer.generate(
            input_ids=token_BM,
            attention_mask=(token_BM > 0).long(),
            max_new_tokens=args.length,
            do_sample=False,
            suppress_tokens=[0],  # switchx never answers with padding
            eos_token_id=EOS,
            pad_token_id=0,
            **(settings if method == "beam" else {}),
        )
    return answer_BL[:, 1:].numpy()


def _answers(batches: Iterator[np.ndarray], count: int) -> Answers:
    """Rows up to their end of sequence."""
    rows = [row for batch in batches for row in batch.tolist()][:count]
    rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
    return [[token for token in row if token] for row in rows]


if __name__ == "__main__":
    main()
