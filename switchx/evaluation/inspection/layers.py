"""What the experts of one layer do, in numbers: from the tokens that it sent to each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from switchx.evaluation.inspection.agreement import (
    agreement,
    by_source,
    by_tokens_alone,
)
from switchx.evaluation.inspection.kinds import KINDS
from switchx.evaluation.inspection.pieces import Pieces
from switchx.evaluation.inspection.seen import Seen
from switchx.model import SwitchConfig

MOST_DESCRIBED = 64  # experts of a layer, the fullest ones
LEAST_COUNT = 10  # of a token whose favourite expert is named
_TOKENS, _CONTEXTS, _FAVOURITES = 12, 6, 60
_BEFORE_AND_AFTER = 8  # tokens of a context


def of_layer(
    seen: Seen, layer: int, pieces: Pieces, sources: Sequence[str], switch: SwitchConfig
) -> dict[str, Any]:
    """Everything that the tokens of a stack say of one of its layers; see docs/inspect.md."""
    main_T, choices, num_experts = seen.main[layer], seen.choices, switch.num_experts
    kind_T = pieces.kinds_of(seen.token_T)
    alike = {
        "token": agreement(main_T, seen.token_T),
        "next_token": agreement(main_T, seen.next_T),
        "kind": agreement(main_T, kind_T),
        "source": agreement(main_T, seen.source_T),
    }
    found_SE, expected_SE = by_source(
        main_T, seen.token_T, seen.source_T, len(sources), num_experts
    )
    tokens_S = np.bincount(seen.source_T[main_T >= 0], minlength=len(sources))
    load_E = seen.load(layer, switch)
    described = np.argsort(-load_E, kind="stable")[:MOST_DESCRIBED]
    return {
        "name": seen.layers[layer],
        "stack": seen.name,
        "load": load_E.tolist(),
        "gate_mean": _mean(choices.prob_NBLK[layer][:, 0]),
        "entropy": _mean(choices.entropy_NBL[layer]),
        "dropped": _mean(seen.dropped[layer]),
        "same_expert": {name: one._asdict() for name, one in alike.items()},
        "source_by_tokens_alone": by_tokens_alone(expected_SE, tokens_S),
        "load_by_source": [
            {"source": name, "load": found.tolist(), "by_tokens_alone": expected.tolist()}
            for name, found, expected in zip(sources, found_SE, expected_SE, strict=True)
        ],
        "experts": [
            _expert(seen, layer, int(e), float(load_E[e]), kind_T, pieces)
            for e in sorted(described.tolist())
        ],
        "favourites": _favourites(main_T, seen.token_T, num_experts, pieces),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if values.size else None


def _expert(
    seen: Seen, layer: int, expert: int, load: float, kind_T: np.ndarray, pieces: Pieces
) -> dict[str, Any]:
    main_T, choices = seen.main[layer], seen.choices
    own_T = np.flatnonzero(main_T == expert)
    taken_TJ = choices.kept_NBLJ[layer] & (choices.expert_NBLJ[layer] == expert)
    token, count, of = _tokens(seen.token_T, own_T)
    excess = count - of * (len(own_T) / max(len(main_T), 1))
    typical = np.argsort(-excess, kind="stable")[:_TOKENS]
    typical = typical[excess[typical] > 0]
    most = np.argsort(-count, kind="stable")[:_TOKENS]

    def rows(chosen: np.ndarray) -> list[list[Any]]:
        return [[pieces.number(token[n]), int(count[n]), int(of[n])] for n in chosen]

    kinds = np.bincount(kind_T[own_T], minlength=len(KINDS)) / max(len(own_T), 1)
    return {
        "expert": expert,
        "load": load,
        "tokens": len(own_T),
        "gate_mean": _mean(choices.gate_NBLJ[layer][taken_TJ]),
        "dropped": _mean(seen.dropped[layer][own_T]),
        "nats": None,
        "kinds": kinds.tolist(),
        "typical": rows(typical),
        "most": rows(most),
        "contexts": [
            _context(seen, layer, own_T[seen.token_T[own_T] == token[n]], pieces)
            for n in typical[:_CONTEXTS]
        ],
    }


def _tokens(token_T: np.ndarray, own_T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens that an expert gets, how often it does, and how often each comes in all."""
    token, count = np.unique(token_T[own_T], return_counts=True)
    everywhere, of = np.unique(token_T, return_counts=True)
    return token, count, of[np.searchsorted(everywhere, token)]


def _context(seen: Seen, layer: int, at_T: np.ndarray, pieces: Pieces) -> dict[str, Any]:
    """Where the expert's gate for one of its tokens is the widest open."""
    gate_T = seen.choices.prob_NBLK[layer][at_T, 0]
    at = int(at_T[np.argmax(gate_T)])
    within = slice(max(at - _BEFORE_AND_AFTER, 0), at + _BEFORE_AND_AFTER + 1)
    same = seen.example_T[within] == seen.example_T[at]
    numbers = np.arange(within.start, within.start + len(same))[same]
    read = [pieces.number(token) for token in seen.token_T[numbers]]
    return {
        "pieces": read,
        "at": at - int(numbers[0]),
        "gate": float(gate_T.max()),
        "source": int(seen.source_T[at]),
    }


def _favourites(
    main_T: np.ndarray, token_T: np.ndarray, num_experts: int, pieces: Pieces
) -> list[list[Any]]:
    """Of frequent tokens [piece, how often, the expert that gets it most, with what share]."""
    has_one_T = main_T >= 0
    token, index_T = np.unique(token_T[has_one_T], return_inverse=True)
    pair, count_P = np.unique(index_T * num_experts + main_T[has_one_T], return_counts=True)
    of = np.bincount(index_T, minlength=len(token))
    best = {}
    for n in np.argsort(count_P, kind="stable"):  # so that the largest is the last to be written
        best[int(pair[n] // num_experts)] = int(pair[n] % num_experts), int(count_P[n])
    order = np.argsort(-of, kind="stable")[:_FAVOURITES]
    return [
        [pieces.number(token[n]), int(of[n]), best[n][0], best[n][1] / int(of[n])]
        for n in order.tolist()
        if of[n] >= LEAST_COUNT
    ]
