"""Prints the table of docs/from_transformers.md: `python -m tests.interop.logits_table`."""

import numpy as np

from tests.interop.peers import KINDS, ours, peer
from tests.interop.test_hf_logits import run, theirs, tokens

_NAMES = {
    "t5": "T5 1.0: relu, tied, scaled",
    "t5_1_1": "T5 1.1, flan: gated GELU, logits of their own",
    "byt5": "ByT5: 6 and 2 layers, `d_kv` times heads above `d_model`",
    "ul2": "UL2: gated SiLU",
    "mt5": "mT5",
    "umt5": "UMT5: a bias in every layer",
    "switch": "Switch: 5 and 4 layers, every 2nd sparse",
    "switch_c": "Switch: encoder all sparse, decoder dense",
}


def main() -> None:
    """A row for each kind: the largest differences over inputs padded left, right and not."""
    print("| model | encoder | logits | largest logit |\n|---|---|---|---|")
    for kind in KINDS:
        rows = []
        for padding in ("none", "right", "left"):
            encoder, decoder = tokens(padding)
            found, expected = (
                run(*ours(kind), encoder, decoder),
                theirs(peer(kind), encoder, decoder),
            )
            differences = [np.abs(a - b) for a, b in zip(found, expected, strict=True)]
            rows.append((differences[0][encoder > 0].max(), differences[1].max()))
            largest = np.abs(expected[1]).max()
        in_encoder, in_logits = np.max(rows, axis=0)
        print(f"| {_NAMES[kind]} | {in_encoder:.1e} | {in_logits:.1e} | {largest:.1f} |")


if __name__ == "__main__":
    main()
