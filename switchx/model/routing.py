"""Routing: router logits to an assignment of experts and slots, by the policy of the config."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from switchx.model.config import SwitchConfig
from switchx.model.noise import Noise
from switchx.model.routing_stats import RoutingStats, routing_stats

# The sites of a switch layer's randomness; the experts' dropout has one too.
INPUT_SITE, EXPERT_SITE, SAMPLE_SITE, SECOND_SITE = range(4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """Where each token's J choices go.

    Attributes:
      expert_GSJ: int32, the expert chosen.
      slot_GSJ: int32, the choice's place among those its expert keeps in the group; of no
        meaning where it is not kept.
      gate_GSJ: float32, the weight of the expert's output; 0 where the choice is not kept.
      kept_GSJ: bool, False where the expert was full, the choice not wanted, or the token padding.
    """

    expert_GSJ: jax.Array
    slot_GSJ: jax.Array
    gate_GSJ: jax.Array
    kept_GSJ: jax.Array


def route(
    config: SwitchConfig,
    logits_GSE: jax.Array,
    mask_GS: jax.Array,
    capacity: int | None,
    causal: bool,
    noise_G: Noise | None,
) -> tuple[Assignment, RoutingStats]:
    """Assigns the unmasked tokens of each group, and says what that did.

    Args:
      logits_GSE: float32 router logits.
      mask_GS: bool, False for padding, which is not routed, counted or given a slot.
      capacity: slots per expert and group; None: as many as are wanted (dropless).
      causal: a token may not take room from an earlier one, nor depend on a later one: the
        decoder. Slots then go token by token in sequence order, dropped tokens are not rerouted,
        and experts do not choose.
      noise_G: keys per group while training, None for evaluation.
    """
    probs_GSE = jax.nn.softmax(logits_GSE, axis=-1)
    E = probs_GSE.shape[-1]
    if config.encoder_routing == "experts_choose" and not causal:
        assert capacity is not None
        assignment = _experts_choose(probs_GSE, mask_GS, capacity)
        found_GS1 = assignment.kept_GSJ.any(axis=-1, keepdims=True)
        count_GE = jnp.sum(assignment.kept_GSJ, axis=1)
        stats = routing_stats(logits_GSE, mask_GS, count_GE, mask_GS[..., None], found_GS1)
        return assignment, stats

    score_GSE = _scores(config, logits_GSE, probs_GSE, noise_G)
    if config.reroute_rounds and capacity is not None and not causal:
        assignment, first_GS1 = _reroute(config, score_GSE, probs_GSE, mask_GS, capacity)
        choice_GSJ, wanted_GSJ = first_GS1, mask_GS[..., None]
    else:
        choice_GSJ, gate_GSJ, wanted_GSJ = _choose(config, score_GSE, probs_GSE, mask_GS, noise_G)
        slot_GSJ, kept_GSJ = jnp.zeros_like(choice_GSJ), wanted_GSJ
        if capacity is not None:
            order_GS = None if causal else _order(config, choice_GSJ, probs_GSE)
            slot_GSJ = places(choice_GSJ, wanted_GSJ, E, order_GS, causal)
            kept_GSJ = wanted_GSJ & (slot_GSJ < capacity)
        gate_GSJ = jnp.where(kept_GSJ, gate_GSJ, 0.0)
        assignment = Assignment(choice_GSJ, slot_GSJ, gate_GSJ, kept_GSJ)
    count_GE = jnp.sum(_one_hot(choice_GSJ, E) * wanted_GSJ[..., None], axis=(1, 2))
    return assignment, routing_stats(logits_GSE, mask_GS, count_GE, wanted_GSJ, assignment.kept_GSJ)


def _one_hot(expert_GSJ: jax.Array, E: int) -> jax.Array:
    return jax.nn.one_hot(expert_GSJ, E, dtype=jnp.int32)


def _scores(
    config: SwitchConfig, logits_GSE: jax.Array, probs_GSE: jax.Array, noise_G: Noise | None
) -> jax.Array:
    """What experts are ranked by: their probability, or numbers that draw from it."""
    if config.exploration != "sample" or noise_G is None:
        return probs_GSE
    # The largest of logits with Gumbel noise are a draw without replacement.
    u_GSE = noise_G.fold(SAMPLE_SITE).uniform(logits_GSE.shape[1:], 0.0, 1.0)
    return logits_GSE - jnp.log(-jnp.log(u_GSE + 1e-20) + 1e-20)


def _order(config: SwitchConfig, choice_GSJ: jax.Array, probs_GSE: jax.Array) -> jax.Array | None:
    """Tokens [G, S] in the order in which they take slots; None: by position."""
    if config.priority == "sequence":
        return None
    first_GS1 = jnp.take_along_axis(probs_GSE, choice_GSJ[..., :1], axis=-1)
    return jnp.argsort(-first_GS1[..., 0], axis=-1, stable=True)


def _choose(
    config: SwitchConfig,
    score_GSE: jax.Array,
    probs_GSE: jax.Array,
    mask_GS: jax.Array,
    noise_G: Noise | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each token's `top_k` experts, their gates, and which of them are wanted; all [G, S, J].

    One choice keeps its probability as gate (Switch Transformers, eq. 2). Several are divided
    by their sum, and the policy then decides on those after the first, as in Mesh-TensorFlow's
    top-2 gating.
    """
    expert_GSJ, gate_GSJ = top_choices(score_GSE, probs_GSE, config.top_k)
    wanted_GSJ = jnp.broadcast_to(mask_GS[..., None], expert_GSJ.shape)
    if config.top_k > 1:
        gate_GSJ = gate_GSJ / (jnp.sum(gate_GSJ, axis=-1, keepdims=True) + 1e-9)
        first_J = jnp.arange(config.top_k) == 0
        wanted_GSJ &= first_J | _second_wanted(config, gate_GSJ, noise_G)
    return expert_GSJ, gate_GSJ, wanted_GSJ


def _second_wanted(
    config: SwitchConfig, gate_GSJ: jax.Array, noise_G: Noise | None
) -> jax.Array | bool:
    if config.second_policy == "always":
        return True
    if config.second_policy == "never":
        return False
    if config.second_policy == "threshold" or noise_G is None:
        return gate_GSJ > config.second_threshold
    u_GSJ = noise_G.fold(SECOND_SITE).uniform(gate_GSJ.shape[1:], 0.0, 1.0)
    return u_GSJ * config.second_threshold < gate_GSJ


def top_choices(
    score_GSE: jax.Array, probs_GSE: jax.Array, top_k: int
) -> tuple[jax.Array, jax.Array]:
    """Experts of the highest scores and their probabilities, [G, S, J]; ties go to the lower.

    jax.lax.top_k says the same, but XLA does not partition it: every device would gather the
    probabilities of all tokens.
    """
    number_E = jnp.arange(probs_GSE.shape[-1], dtype=jnp.int32)
    left_GSE = jax.lax.stop_gradient(score_GSE)
    experts, probs = [], []
    for _ in range(top_k):
        expert_GS = jnp.argmax(left_GSE, axis=-1).astype(jnp.int32)
        chosen_GSE = expert_GS[..., None] == number_E
        experts.append(expert_GS)
        probs.append(jnp.sum(jnp.where(chosen_GSE, probs_GSE, 0.0), axis=-1))
        left_GSE = jnp.where(chosen_GSE, -jnp.inf, left_GSE)
    return jnp.stack(experts, axis=-1), jnp.stack(probs, axis=-1)


def places(
    expert_GSJ: jax.Array,
    wanted_GSJ: jax.Array,
    num_experts: int,
    order_GS: jax.Array | None = None,
    causal: bool = False,
) -> jax.Array:
    """int32 [G, S, J]: how many earlier wanted choices of the group fell on the same expert.

    Earlier: first choices before second ones, then in the order of tokens `order_GS` (None: by
    position). Where `causal`, all of a token's choices before any of a later token's, since a
    later token's first choice must not take the room of an earlier one's second.
    """
    G, S, J = expert_GSJ.shape
    if causal:
        expert_GT1, wanted_GT1 = (x.reshape(G, S * J, 1) for x in (expert_GSJ, wanted_GSJ))
        return places(expert_GT1, wanted_GT1, num_experts).reshape(G, S, J)
    if order_GS is not None:
        expert_GSJ, wanted_GSJ = (_by_token(x, order_GS) for x in (expert_GSJ, wanted_GSJ))
        place_GSJ = places(expert_GSJ, wanted_GSJ, num_experts)
        return _by_token(place_GSJ, jnp.argsort(order_GS, axis=-1))
    in_turn: Callable[[jax.Array], jax.Array] = lambda x: x.swapaxes(1, 2).reshape(G, J * S)  # noqa: E731
    expert_GT, wanted_GT = in_turn(expert_GSJ), in_turn(wanted_GSJ)
    chosen_GTE = _one_hot(expert_GT, num_experts) * wanted_GT[..., None]
    before_GTE = jnp.cumsum(chosen_GTE, axis=1) - chosen_GTE
    place_GT = jnp.take_along_axis(before_GTE, expert_GT[..., None], axis=2)[..., 0]
    return place_GT.reshape(G, J, S).swapaxes(1, 2)


def _by_token(x_GSJ: jax.Array, index_GS: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_GSJ, index_GS[..., None], axis=1)


def _reroute(
    config: SwitchConfig,
    score_GSE: jax.Array,
    probs_GSE: jax.Array,
    mask_GS: jax.Array,
    capacity: int,
) -> tuple[Assignment, jax.Array]:
    """No-Token-Left-Behind (appendix B): tokens that found no room try their next choice.

    Returns:
      The assignment, J = 1, and every token's first choice, int32 [G, S, 1].
    """
    E = probs_GSE.shape[-1]
    choice_GSJ, prob_GSJ = top_choices(score_GSE, probs_GSE, config.reroute_rounds + 1)
    order_GS = _order(config, choice_GSJ, probs_GSE)
    expert_GS1, gate_GS1 = choice_GSJ[..., :1], jnp.zeros_like(prob_GSJ[..., :1])
    slot_GS1, kept_GS1 = jnp.zeros_like(expert_GS1), jnp.zeros_like(mask_GS[..., None])
    load_GE = jnp.zeros((probs_GSE.shape[0], E), jnp.int32)
    for j in range(config.reroute_rounds + 1):
        next_GS1, prob_GS1 = choice_GSJ[..., j : j + 1], prob_GSJ[..., j : j + 1]
        left_GS1 = mask_GS[..., None] & ~kept_GS1
        taken_GS = jnp.take_along_axis(load_GE, next_GS1[..., 0], axis=1)
        place_GS1 = places(next_GS1, left_GS1, E, order_GS) + taken_GS[..., None]
        placed_GS1 = left_GS1 & (place_GS1 < capacity)
        expert_GS1 = jnp.where(placed_GS1, next_GS1, expert_GS1)
        slot_GS1 = jnp.where(placed_GS1, place_GS1, slot_GS1)
        gate_GS1 = jnp.where(placed_GS1, prob_GS1, gate_GS1)
        kept_GS1 = kept_GS1 | placed_GS1
        load_GE += jnp.sum(_one_hot(next_GS1, E) * placed_GS1[..., None], axis=(1, 2))
    return Assignment(expert_GS1, slot_GS1, gate_GS1, kept_GS1), choice_GSJ[..., :1]


def _experts_choose(probs_GSE: jax.Array, mask_GS: jax.Array, capacity: int) -> Assignment:
    """Each expert takes the `capacity` tokens most probable for it (Zhou et al. 2022, eq. 2-3).

    Choice j of every token is expert j; ties go to the earlier token.
    """
    key_GSE = jnp.where(mask_GS[..., None], -jax.lax.stop_gradient(probs_GSE), jnp.inf)
    token_GCE = jnp.argsort(key_GSE, axis=1, stable=True)
    rank_GSE = jnp.argsort(token_GCE, axis=1).astype(jnp.int32)
    kept_GSE = (rank_GSE < capacity) & mask_GS[..., None]
    expert_GSE = jnp.broadcast_to(jnp.arange(probs_GSE.shape[-1], dtype=jnp.int32), rank_GSE.shape)
    return Assignment(expert_GSE, rank_GSE, jnp.where(kept_GSE, probs_GSE, 0.0), kept_GSE)
