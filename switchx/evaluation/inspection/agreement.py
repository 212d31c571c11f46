"""How far tokens that have something in common go to the same expert, beside what chance gives.

Plain NumPy over T tokens. Pairs of tokens are counted and not favourite experts, since a token seen
five times has a favourite by chance alone: of pairs drawn without replacement the share is unbiased
however few there are.
"""

from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """The share of pairs that go to the same expert, and what it would be by chance.

    Attributes:
      found: of pairs of tokens that have something in common; None where there is no such pair.
      chance: of any pairs.
    """

    found: float | None
    chance: float | None


def agreement(expert_T: np.ndarray, key_T: np.ndarray) -> Agreement:
    """Of tokens with the same key, sum_k C(n_k, e; 2) / sum_k C(n_k; 2); of any, the same with one.

    Args:
      expert_T: int, -1 for a token without one, which is left out.
    """
    has_one_T = expert_T >= 0
    expert_T, key_T = expert_T[has_one_T], key_T[has_one_T]
    return Agreement(_same(expert_T, key_T), _same(expert_T, np.zeros_like(expert_T)))


def _same(expert_T: np.ndarray, key_T: np.ndarray) -> float | None:
    pairs = _pairs(key_T)
    if not pairs:
        return None
    _, key_T = np.unique(key_T, return_inverse=True)
    return _pairs(key_T * (int(expert_T.max()) + 1) + expert_T) / pairs


def _pairs(value_T: np.ndarray) -> int:
    """Ordered pairs of equal values."""
    _, counts = np.unique(value_T, return_counts=True)
    counts = counts.astype(np.int64)
    return int(np.sum(counts * (counts - 1)))


def by_source(
    expert_T: np.ndarray, token_T: np.ndarray, source_T: np.ndarray, sources: int, experts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each source's share of every expert, and what the frequencies of its tokens alone give.

    That is sum_t p(t | source) p(expert | t): what it would be if a router looked at nothing but
    the token, and so what two sources differ by since they use different words.

    Returns:
      found, expected: float64 [sources, experts]; rows of zeros for a source without tokens.
    """
    has_one_T = expert_T >= 0
    expert_T, token_T, source_T = expert_T[has_one_T], token_T[has_one_T], source_T[has_one_T]
    found_SE = np.zeros((sources, experts))
    np.add.at(found_SE, (source_T, expert_T), 1.0)
    _, token_T = np.unique(token_T, return_inverse=True)
    count_V = np.bincount(token_T)
    expected_SE = np.zeros((sources, experts))
    for source in range(sources):
        in_source_V = np.bincount(token_T[source_T == source], minlength=len(count_V))
        weight_V = in_source_V / np.maximum(count_V, 1)
        expected_SE[source] = np.bincount(expert_T, weight_V[token_T], minlength=experts)
    size_S1 = np.maximum(found_SE.sum(axis=1, keepdims=True), 1.0)
    return found_SE / size_S1, expected_SE / size_S1


def by_tokens_alone(expected_SE: np.ndarray, tokens_S: np.ndarray) -> float | None:
    """The agreement of pairs of a source that its tokens' frequencies alone give: see `by_source`.

    Args:
      tokens_S: of each source; it weighs by its pairs.
    """
    pairs_S = tokens_S.astype(np.float64) * (tokens_S - 1)
    if not pairs_S.sum():
        return None
    return float(np.sum(pairs_S * np.sum(expected_SE**2, axis=1)) / pairs_S.sum())


def saturation(expert_T: np.ndarray, earlier_T: np.ndarray, experts: int) -> Agreement:
    """The share of tokens that went to the same expert at an earlier checkpoint (OLMoE, 5.1).

    By chance: were each checkpoint's loads all that they have in common.
    """
    if not len(expert_T):
        return Agreement(None, None)
    load_E, earlier_E = (
        np.bincount(x_T[x_T >= 0], minlength=experts) / len(x_T) for x_T in (expert_T, earlier_T)
    )
    same_T = (expert_T == earlier_T) & (expert_T >= 0)
    return Agreement(float(same_T.mean()), float(load_E @ earlier_E))


def flows(from_T: np.ndarray, to_T: np.ndarray, most: int) -> tuple[list[list[int]], int]:
    """The largest flows, [from, to, tokens], largest first; and the tokens of all others."""
    has_T = (from_T >= 0) & (to_T >= 0)
    pairs, counts = np.unique(
        np.stack([from_T[has_T], to_T[has_T]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    rows = [[*pairs[n].tolist(), int(counts[n])] for n in order[:most]]
    return rows, int(counts[order[most:]].sum())
