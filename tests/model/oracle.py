"""The switch layer and attention from their formulas, in plain loops over NumPy float64.

Shares no code with switchx. Routing is in routing_oracle.py; feed-forward networks, relative
positions and attention follow T5.
"""

import math
from typing import Any

import numpy as np

from tests.model.routing_oracle import Policy, Room, Stats, mean_stats, route, softmax


def feed_forward(
    x_D: np.ndarray, wi_DF: np.ndarray, wo_FD: np.ndarray, gate_DF: np.ndarray | None = None
) -> np.ndarray:
    h_F = x_D @ wi_DF
    h_F = np.maximum(h_F, 0.0) if gate_DF is None else gelu(x_D @ gate_DF) * h_F
    return h_F @ wo_FD


def gelu(x: np.ndarray) -> np.ndarray:
    """The approximation by tanh, which T5 1.1 uses."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def switch_layer(
    x_GSD: np.ndarray,
    mask_GS: np.ndarray,
    params: dict[str, Any],
    policy: Policy,
    room: Room,
    causal: bool = False,
    router_x_GSD: np.ndarray | None = None,
    gumbel_GSE: np.ndarray | None = None,
    uniform_GSJ: np.ndarray | None = None,
) -> tuple[np.ndarray, Stats]:
    """Output [G, S, D] and statistics; `params` has router_DE, and of each expert wi_EDF,
    wo_EFD, maybe gate_EDF, which need not be of one width.

    router_x_GSD: what the router sees where that is not `x` (jitter, input dropout).
    """
    router_x_GSD = x_GSD if router_x_GSD is None else router_x_GSD
    y_GSD, groups = np.zeros_like(x_GSD), []
    for g in range(len(x_GSD)):
        logits_SE = router_x_GSD[g] @ params["router_DE"]
        gumbel_SE = None if gumbel_GSE is None else gumbel_GSE[g]
        uniform_SJ = None if uniform_GSJ is None else uniform_GSJ[g]
        routed = route(logits_SE, mask_GS[g], policy, room, causal, gumbel_SE, uniform_SJ)
        groups.append((logits_SE, mask_GS[g], routed))
        for s, j in np.argwhere(routed.kept_SJ):
            e = routed.expert_SJ[s, j]
            gate_DF = params["gate_EDF"][e] if "gate_EDF" in params else None
            y_D = feed_forward(x_GSD[g, s], params["wi_EDF"][e], params["wo_EFD"][e], gate_DF)
            y_GSD[g, s] += routed.gate_SJ[s, j] * y_D
    return y_GSD, mean_stats(groups, policy.cost_E)


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
