"""One feed-forward of many: what may take the place of a switch layer's experts.

Pure functions of arrays. Experts are {"wi_EDF": [E, D, F], "wo_EFD": [E, F, D]}, of a gated
activation "gate_EDF" too; a feed-forward is the same without its E. None of them knows the router's
gate, by which a switch layer multiplies what an expert gives.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Experts = Mapping[str, jax.Array]
FeedForward = dict[str, jax.Array]

OF_EXPERT = {"wi_EDF": "wi_DF", "gate_EDF": "gate_DF", "wo_EFD": "wo_FD"}
NEED_LOAD = ("most_used", "top_k")


def merge(way: str, experts: Experts, load_E: jax.Array | None, width: int) -> FeedForward:
    """A feed-forward made of experts, as macro START_FEED_FORWARDS names it.

    Args:
      way: "mean", "sum", "most_used", "top_k" or "low_rank".
      load_E: float32, each expert's share of the tokens; of `NEED_LOAD` alone.
      width: F of the feed-forward, which only "top_k" may have other than the experts'.
    """
    if way in NEED_LOAD:
        assert load_E is not None
        return top_k(experts, load_E, width) if way == "top_k" else most_used(experts, load_E)
    return {"mean": mean, "sum": total, "low_rank": low_rank}[way](experts)


def one(experts: Experts, number: int | jax.Array) -> FeedForward:
    """The expert of a number."""
    return {OF_EXPERT[name]: kernel[number] for name, kernel in experts.items()}


def mean(experts: Experts) -> FeedForward:
    """The mean of each weight over the experts."""
    return {OF_EXPERT[name]: jnp.mean(kernel, axis=0) for name, kernel in experts.items()}


def total(experts: Experts) -> FeedForward:
    """The sum of each weight over the experts."""
    return {OF_EXPERT[name]: jnp.sum(kernel, axis=0) for name, kernel in experts.items()}


def most_used(experts: Experts, load_E: jax.Array) -> FeedForward:
    """The expert of the highest load, of several the first."""
    return one(experts, jnp.argmax(load_E))


def top_k(experts: Experts, load_E: jax.Array, width: int) -> FeedForward:
    """The `width` neurons of all experts that matter most, each with the weights that it has.

    A neuron is a column of wi (and of gate) with its row of wo. It matters by its expert's load
    times the product of their norms, which bounds what it adds: after Top-KG of Xue et al. 2022
    (2201.10890), which ranks within each matrix. Neurons keep their order, by expert.
    """
    worth_EF = load_E[:, None]
    for name, kernel in experts.items():
        worth_EF = worth_EF * jnp.linalg.norm(kernel, axis=2 if name == "wo_EFD" else 1)
    _, chosen_F = jax.lax.top_k(worth_EF.reshape(-1), width)
    expert_F, neuron_F = jnp.divmod(jnp.sort(chosen_F), worth_EF.shape[1])
    return {
        OF_EXPERT[name]: (
            kernel[expert_F, neuron_F] if name == "wo_EFD" else kernel[expert_F, :, neuron_F].T
        )
        for name, kernel in experts.items()
    }


def low_rank(experts: Experts) -> FeedForward:
    """The sum of the experts, each matrix cut to its largest min(D, F) / E singular values.

    So that together they have the rank of one: SVD-KG of Xue et al. 2022 (2201.10890).
    """

    def cut(kernel: jax.Array) -> jax.Array:
        rank = max(1, min(kernel.shape[1:]) // kernel.shape[0])
        u, s, v = jnp.linalg.svd(kernel, full_matrices=False)
        return jnp.einsum("eir,er,erj->ij", u[..., :rank], s[:, :rank], v[:, :rank])

    return {OF_EXPERT[name]: cut(kernel) for name, kernel in experts.items()}
