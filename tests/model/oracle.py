"""The switch layer from its formulas, in plain loops over NumPy float64.

Shares no code with switchx. Sources: Switch Transformers sections 2.1-2.2 and equations 1-6, the
original code for what these leave open (capacity per group rounded down, at least a minimum;
overflow in sequence order), ST-MoE equation 5 for the z-loss, and T5 for feed-forward networks.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass
class Routed:
    """What became of one group of S tokens with J choices each."""

    expert_SJ: np.ndarray
    slot_SJ: np.ndarray  # -1 where the choice found no room, or the token is padding
    gate_SJ: np.ndarray  # 0 there


@dataclasses.dataclass
class Stats:
    balance_loss: float
    z_loss: float
    load_E: np.ndarray
    dropped_fraction: float
    entropy: float
    gate_mean: float


def capacity(factor: float, tokens: int, experts: int, choices: int, least: int) -> int:
    share = math.floor(round(factor * tokens * choices / experts, 9))
    return min(tokens, max(share, least))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def route(probs_SE: np.ndarray, mask_S: np.ndarray, choices: int, room: int) -> Routed:
    """First choices of all tokens are placed before any second one, each in sequence order."""
    S, E = probs_SE.shape
    expert_SJ = np.zeros((S, choices), int)
    slot_SJ = np.full((S, choices), -1)
    gate_SJ = np.zeros((S, choices))
    taken_E = [0] * E
    for j in range(choices):
        for s in range(S):
            # By probability downwards; the lower expert where two are the same.
            ranked = sorted(range(E), key=lambda e, s=s: (-probs_SE[s, e], e))
            e = expert_SJ[s, j] = ranked[j]
            if not mask_S[s]:
                continue
            if taken_E[e] < room:
                slot_SJ[s, j] = taken_E[e]
                chosen = [probs_SE[s, other] for other in ranked[:choices]]
                gate_SJ[s, j] = probs_SE[s, e] if choices == 1 else probs_SE[s, e] / sum(chosen)
            taken_E[e] += 1
    return Routed(expert_SJ, slot_SJ, gate_SJ)


def feed_forward(
    x_D: np.ndarray, wi_DF: np.ndarray, wo_FD: np.ndarray, gate_DF: np.ndarray | None = None
) -> np.ndarray:
    h_F = x_D @ wi_DF
    h_F = np.maximum(h_F, 0.0) if gate_DF is None else gelu(x_D @ gate_DF) * h_F
    return h_F @ wo_FD


def gelu(x: np.ndarray) -> np.ndarray:
    """The approximation by tanh, which T5 1.1 uses."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def stats(groups: list[tuple[np.ndarray, np.ndarray, Routed]]) -> Stats:
    """Means over groups (logits_SE, mask_S, routed) of means over real tokens."""
    each = [_group_stats(*group) for group in groups]
    mean = {
        field.name: np.mean([getattr(one, field.name) for one in each], axis=0)
        for field in dataclasses.fields(Stats)
    }
    return Stats(**mean)


def _group_stats(logits_SE: np.ndarray, mask_S: np.ndarray, routed: Routed) -> Stats:
    E, J = logits_SE.shape[1], routed.expert_SJ.shape[1]
    real = [s for s in range(len(mask_S)) if mask_S[s]]
    if not real:
        return Stats(0.0, 0.0, np.zeros(E), 0.0, 0.0, 0.0)
    f_E, P_E = np.zeros(E), np.zeros(E)
    z = dropped = entropy = gate = 0.0
    for s in real:
        probs_E = softmax(logits_SE[s])
        P_E += probs_E / len(real)
        for j in range(J):
            f_E[routed.expert_SJ[s, j]] += 1.0 / (J * len(real))
            dropped += (routed.slot_SJ[s, j] < 0) / (J * len(real))
        z += math.log(np.exp(logits_SE[s]).sum()) ** 2 / len(real)
        entropy += -(probs_E * np.log(probs_E)).sum() / len(real)
        gate += probs_E.max() / len(real)
    return Stats(E * (f_E * P_E).sum(), z, f_E, dropped, entropy, gate)


def switch_layer(
    x_GSD: np.ndarray,
    mask_GS: np.ndarray,
    params: dict[str, np.ndarray],
    choices: int,
    room: int,
) -> tuple[np.ndarray, Stats]:
    """Output [G, S, D] and statistics; `params` has router_DE, wi_EDF, wo_EFD, maybe gate_EDF."""
    y_GSD, groups = np.zeros_like(x_GSD), []
    for g in range(len(x_GSD)):
        logits_SE = x_GSD[g] @ params["router_DE"]
        probs_SE = np.stack([softmax(row) for row in logits_SE])
        routed = route(probs_SE, mask_GS[g], choices, room)
        groups.append((logits_SE, mask_GS[g], routed))
        for s in range(x_GSD.shape[1]):
            for j in range(choices):
                if routed.slot_SJ[s, j] < 0:
                    continue
                e = routed.expert_SJ[s, j]
                gate_DF = params["gate_EDF"][e] if "gate_EDF" in params else None
                y_D = feed_forward(x_GSD[g, s], params["wi_EDF"][e], params["wo_EFD"][e], gate_DF)
                y_GSD[g, s] += routed.gate_SJ[s, j] * y_D
    return y_GSD, stats(groups)


def bucket(distance: int, bidirectional: bool, buckets: int, furthest: int) -> int:
    """T5's relative position bucket, in whole numbers only, so that nothing can be rounded.

    Bucket e + k begins where e * (furthest / e)^(k / e) <= distance, with e exact buckets of n.
    """
    offset = 0
    if bidirectional:
        buckets //= 2
        if distance > 0:
            offset = buckets
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return offset + distance
    logarithmic = buckets - exact
    k = 0
    while k + 1 < logarithmic and distance**logarithmic * exact ** (
        k + 1
    ) >= exact**logarithmic * furthest ** (k + 1):
        k += 1
    return offset + exact + k


def attention(
    query_LD: np.ndarray,
    memory_MD: np.ndarray,
    kernels: dict[str, np.ndarray],
    heads: int,
    bias_HLM: np.ndarray,
    visible_LM: np.ndarray,
) -> np.ndarray:
    """Multi-head attention of one sequence; kernels query_DT, key_DT, value_DT, out_TD."""
    q, k, v = query_LD @ kernels["query"], memory_MD @ kernels["key"], memory_MD @ kernels["value"]
    K = q.shape[1] // heads
    y_LT = np.zeros_like(q)
    for h in range(heads):
        at = slice(h * K, (h + 1) * K)
        for l in range(len(query_LD)):
            seen = [m for m in range(len(memory_MD)) if visible_LM[l, m]]
            logits = np.array([q[l, at] @ k[m, at] + bias_HLM[h, l, m] for m in seen])
            weights = softmax(logits)
            y_LT[l, at] = sum(w * v[m, at] for w, m in zip(weights, seen, strict=True))
    return y_LT @ kernels["out"]
