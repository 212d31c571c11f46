"""Every routing policy from its formula, in plain loops over NumPy float64; one group at a time.

Shares no code with switchx. Sources: Switch Transformers sections 2.1-2.2, equations 1-6 and
appendices B and C; the original code for what these leave open (capacity per group rounded down,
at least a minimum; gates of several choices divided by their sum); Vision MoE (Riquelme et al.
2021) for priority by gate; Zhou et al. 2022 for experts that choose; ST-MoE equation 5 for z-loss.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is decided how. `second` says which choices after the first are wanted."""

    top_k: int = 1
    second: str = "always"
    threshold: float = 0.2
    by_gate: bool = False  # tokens take slots by the probability of their first choice
    rounds: int = 0
    experts_choose: bool = False
    cost_E: tuple[int, ...] | None = None  # the balance loss weighs each expert's load by it
    pool_E: tuple[int, ...] | None = None  # experts of one pool have their room together


@dataclasses.dataclass
class Routed:
    """What became of one group of S tokens with J choices each."""

    expert_SJ: np.ndarray
    kept_SJ: np.ndarray
    gate_SJ: np.ndarray  # 0 where the choice is not kept
    asked_E: np.ndarray  # choices that count in the balance loss, per expert
    dropped: float  # the share of them, or of tokens, that found no room


@dataclasses.dataclass
class Stats:
    balance_loss: float
    z_loss: float
    load_E: np.ndarray
    dropped_fraction: float
    entropy: float
    gate_mean: float


def capacity(factor: float, tokens: int, experts: int, least: int) -> int:
    share = math.floor(round(factor * tokens / experts, 9))
    return min(tokens, max(share, least))


def capacities_by_cost(factor: float, tokens: int, cost_E: Sequence[int], least: int) -> list[int]:
    """Of each expert, where tokens times cost are to be the same of all (HMoE, section 3)."""
    rate_E = 1.0 / np.array(cost_E, np.float64)
    share_E = np.round(factor * tokens * rate_E / rate_E.sum(), 9)
    return [min(tokens, max(math.floor(share), least)) for share in share_E]


def slots_of(room: "Room", expert: int) -> float:
    """How many an expert has."""
    if room is None:
        return math.inf
    return room if isinstance(room, int) else room[expert]


# Slots of every expert, or of each; None is for all.
Room = int | Sequence[int] | None


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def gumbel(uniform: np.ndarray) -> np.ndarray:
    """Numbers whose sum with logits has its maximum at e with probability softmax(logits)_e."""
    return -np.log(-np.log(uniform.astype(np.float64) + 1e-20) + 1e-20)


def route(
    logits_SE: np.ndarray,
    mask_S: np.ndarray,
    policy: Policy,
    room: Room,
    causal: bool = False,
    gumbel_SE: np.ndarray | None = None,
    uniform_SJ: np.ndarray | None = None,
) -> Routed:
    """Routes one group; room None: every expert has room for all.

    gumbel_SE: choices are sampled. uniform_SJ: `second="random"` draws by these numbers.
    """
    logits_SE = logits_SE.astype(np.float64)
    probs_SE = np.stack([softmax(logits_E) for logits_E in logits_SE])
    real = [s for s in range(len(mask_S)) if mask_S[s]]
    if policy.experts_choose and not causal:
        assert room is not None
        return _experts_choose(probs_SE, real, room)
    score_SE = logits_SE if gumbel_SE is None else logits_SE + gumbel_SE
    # Each token's experts, best first; the lower expert where two are the same.
    ranked = [sorted(range(len(row)), key=lambda e, row=row: (-row[e], e)) for row in score_SE]
    if policy.by_gate and not causal:
        # Python's sort leaves equals in order: ties by position.
        real = sorted(real, key=lambda s: -probs_SE[s, ranked[s][0]])
    if policy.rounds and not causal:
        assert room is not None
        return _reroute(probs_SE, ranked, real, room, policy.rounds)
    return _tokens_choose(probs_SE, ranked, real, policy, room, causal, uniform_SJ)


def _tokens_choose(
    probs_SE: np.ndarray,
    ranked: list[list[int]],
    order: list[int],
    policy: Policy,
    room: Room,
    causal: bool,
    uniform_SJ: np.ndarray | None,
) -> Routed:
    S, E = probs_SE.shape
    J = policy.top_k
    expert_SJ = np.array([row[:J] for row in ranked])
    gate_SJ = np.take_along_axis(probs_SE, expert_SJ, axis=1)
    if J > 1:
        gate_SJ = gate_SJ / (gate_SJ.sum(axis=1, keepdims=True) + 1e-9)
    if causal:  # all that a token takes before anything that a later one takes
        turns = [(s, j) for s in order for j in range(J)]
    else:
        turns = [(s, j) for j in range(J) for s in order]
    kept_SJ = np.zeros((S, J), bool)
    asked_E = np.zeros(E, int)
    pool_E = policy.pool_E or range(E)  # each its own
    asked_of_pool = dict.fromkeys(pool_E, 0)
    for s, j in turns:
        if not _wanted(policy, j, gate_SJ[s, j], None if uniform_SJ is None else uniform_SJ[s, j]):
            continue
        e = expert_SJ[s, j]
        kept_SJ[s, j] = asked_of_pool[pool_E[e]] < slots_of(room, e)
        asked_of_pool[pool_E[e]] += 1
        asked_E[e] += 1
    dropped = 1.0 - kept_SJ.sum() / max(asked_E.sum(), 1) if order else 0.0
    return Routed(expert_SJ, kept_SJ, np.where(kept_SJ, gate_SJ, 0.0), asked_E, dropped)


def _wanted(policy: Policy, j: int, gate: float, uniform: float | None) -> bool:
    if j == 0 or policy.second == "always":
        return True
    if policy.second == "never":
        return False
    if policy.second == "random" and uniform is not None:
        return uniform < min(1.0, gate / policy.threshold)
    return gate > policy.threshold


def _reroute(
    probs_SE: np.ndarray, ranked: list[list[int]], order: list[int], room: Room, rounds: int
) -> Routed:
    """No-Token-Left-Behind: who found no room tries the next expert, after all others' turn."""
    S, E = probs_SE.shape
    expert_SJ, gate_SJ = np.zeros((S, 1), int), np.zeros((S, 1))
    kept_SJ = np.zeros((S, 1), bool)
    taken_E, first_E = np.zeros(E, int), np.zeros(E, int)
    for s in order:
        first_E[ranked[s][0]] += 1
    for r in range(rounds + 1):
        for s in order:
            e = ranked[s][r]
            if not kept_SJ[s, 0] and taken_E[e] < slots_of(room, e):
                taken_E[e] += 1
                expert_SJ[s, 0], gate_SJ[s, 0], kept_SJ[s, 0] = e, probs_SE[s, e], True
    dropped = 1.0 - kept_SJ.sum() / max(len(order), 1) if order else 0.0
    return Routed(expert_SJ, kept_SJ, gate_SJ, first_E, dropped)


def _experts_choose(probs_SE: np.ndarray, real: list[int], room: Room) -> Routed:
    """Choice j of a token is expert j."""
    S, E = probs_SE.shape
    kept_SE = np.zeros((S, E), bool)
    for e in range(E):
        for s in sorted(real, key=lambda s, e=e: (-probs_SE[s, e], s))[
            : int(min(len(real), slots_of(room, e)))
        ]:
            kept_SE[s, e] = True
    left_out = [s for s in real if not kept_SE[s].any()]
    return Routed(
        np.tile(np.arange(E), (S, 1)),
        kept_SE,
        np.where(kept_SE, probs_SE, 0.0),
        kept_SE.sum(axis=0),
        len(left_out) / max(len(real), 1),
    )


def mean_stats(
    groups: list[tuple[np.ndarray, np.ndarray, Routed]], cost_E: Sequence[int] | None = None
) -> Stats:
    """Means over groups (logits_SE, mask_S, routed) of means over real tokens."""
    each = [_group_stats(*group, cost_E) for group in groups]
    mean = {
        field.name: np.mean([getattr(one, field.name) for one in each], axis=0)
        for field in dataclasses.fields(Stats)
    }
    return Stats(**mean)


def _group_stats(
    logits_SE: np.ndarray, mask_S: np.ndarray, routed: Routed, cost_E: Sequence[int] | None
) -> Stats:
    E = logits_SE.shape[1]
    real = [s for s in range(len(mask_S)) if mask_S[s]]
    if not real:
        return Stats(0.0, 0.0, np.zeros(E), 0.0, 0.0, 0.0)
    f_E, P_E = routed.asked_E / routed.asked_E.sum(), np.zeros(E)
    z = entropy = gate = 0.0
    for s in real:
        logits_E = logits_SE[s].astype(np.float64)
        probs_E = softmax(logits_E)
        P_E += probs_E / len(real)
        z += math.log(np.exp(logits_E).sum()) ** 2 / len(real)
        entropy += -(probs_E * np.log(probs_E)).sum() / len(real)
        gate += probs_E.max() / len(real)
    work_E = f_E if cost_E is None else f_E * np.array(cost_E) / np.mean(cost_E)
    return Stats(E * (work_E * P_E).sum(), z, f_E, routed.dropped, entropy, gate)
