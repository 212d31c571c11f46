"""What policies are made of: the best experts of a token, and places in an expert's queue."""

import jax
import jax.numpy as jnp


def one_hot(expert_GSJ: jax.Array, E: int) -> jax.Array:
    """int32 [G, S, J, E]."""
    return jax.nn.one_hot(expert_GSJ, E, dtype=jnp.int32)


def top_choices(
    score_GSE: jax.Array, value_GSE: jax.Array, top_k: int
) -> tuple[jax.Array, jax.Array]:
    """Experts of the highest scores, and the values at these, [G, S, J]; ties go to the lower.

    jax.lax.top_k says the same, but XLA does not partition it: every device would gather the
    probabilities of all tokens.
    """
    number_E = jnp.arange(value_GSE.shape[-1], dtype=jnp.int32)
    left_GSE = jax.lax.stop_gradient(score_GSE)
    experts, values = [], []
    for _ in range(top_k):
        expert_GS = jnp.argmax(left_GSE, axis=-1).astype(jnp.int32)
        chosen_GSE = expert_GS[..., None] == number_E
        experts.append(expert_GS)
        values.append(jnp.sum(jnp.where(chosen_GSE, value_GSE, 0.0), axis=-1))
        left_GSE = jnp.where(chosen_GSE, -jnp.inf, left_GSE)
    return jnp.stack(experts, axis=-1), jnp.stack(values, axis=-1)


def order_of(priority: str, choice_GSJ: jax.Array, probs_GSE: jax.Array) -> jax.Array | None:
    """Tokens [G, S] in the order in which they take slots; None: by position ("sequence").

    "gate" is the likeliest first choice first (batch-prioritised routing, Riquelme et al. 2021).
    """
    if priority == "sequence":
        return None
    first_GS1 = jnp.take_along_axis(probs_GSE, choice_GSJ[..., :1], axis=-1)
    return jnp.argsort(-first_GS1[..., 0], axis=-1, stable=True)


def places(
    queue_GSJ: jax.Array,
    wanted_GSJ: jax.Array,
    num_queues: int,
    order_GS: jax.Array | None = None,
    causal: bool = False,
) -> jax.Array:
    """int32 [G, S, J]: how many earlier wanted choices of the group stand in the same queue.

    A queue is for an expert's slots, or for those of a pool of experts. Earlier: first choices
    before second ones, then in the order of tokens `order_GS` (None: by position). Where `causal`,
    all of a token's choices before any of a later token's, since a later token's first choice must
    not take the room of an earlier one's second.

    All choices stand in one line T of their turns; a place is the running count, before it, of
    ones in the queue's column of the line's one-hot matrix. The orders are turns of that line.
    """
    G, S, J = queue_GSJ.shape
    if causal:  # token by token, each with all its choices
        line_GT, wanted_GT = (x.reshape(G, S * J) for x in (queue_GSJ, wanted_GSJ))
        return _place_in_line(line_GT, wanted_GT, num_queues).reshape(G, S, J)
    if order_GS is not None:
        queue_GSJ, wanted_GSJ = (_permuted(x, order_GS) for x in (queue_GSJ, wanted_GSJ))
    line_GT, wanted_GT = (x.swapaxes(1, 2).reshape(G, J * S) for x in (queue_GSJ, wanted_GSJ))
    place_GT = _place_in_line(line_GT, wanted_GT, num_queues)
    place_GSJ = place_GT.reshape(G, J, S).swapaxes(1, 2)
    return place_GSJ if order_GS is None else _permuted(place_GSJ, jnp.argsort(order_GS, axis=-1))


def _place_in_line(queue_GT: jax.Array, wanted_GT: jax.Array, num_queues: int) -> jax.Array:
    mine_GTQ = one_hot(queue_GT, num_queues) * wanted_GT[..., None]
    before_GTQ = jnp.cumsum(mine_GTQ, axis=1) - mine_GTQ
    return jnp.take_along_axis(before_GTQ, queue_GT[..., None], axis=2)[..., 0]


def _permuted(x_GSJ: jax.Array, index_GS: jax.Array) -> jax.Array:
    """The tokens of each group in another order."""
    return jnp.take_along_axis(x_GSJ, index_GS[..., None], axis=1)
