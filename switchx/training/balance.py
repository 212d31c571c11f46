"""What a step does to keep experts equally loaded over its whole batch; see model/routing/balance.

Routers' biases move here, after the optimizer's update and apart from it. And the balance loss of
the batch is added here, since of microbatches the step alone knows what they are part of.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from switchx.model import ModelConfig, Params
from switchx.model.routing import RoutingStats, Tally
from switchx.model.routing.balance import (
    batch_balance_loss,
    moved_by_counts,
    moved_by_quantiles,
)
from switchx.training.freezing import Patterns, is_frozen
from switchx.training.objectives import Outcome

# Of a layer with experts, in the order of its statistics.
_PARTS = {
    "attention": ("attention",),
    "feed_forward": ("feed_forward",),
    "both": ("attention", "feed_forward"),
}


def balanced(
    config: ModelConfig, frozen: Patterns, params: Params, stats: RoutingStats | None
) -> Params:
    """The parameters with their routers' biases moved by what the batch did.

    Args:
      frozen: FREEZE; a bias that it names stays.
      stats: of the whole batch.
    """
    if config.switch is None or not config.switch.biased:
        return params
    assert stats is not None
    assert stats.tally is not None
    switch, tally = config.switch, stats.tally

    def moved(bias_NE: jax.Array, tally: Tally) -> jax.Array:
        if switch.balance_bias:
            return moved_by_counts(bias_NE, tally, switch.balance_bias)
        return moved_by_quantiles(bias_NE, tally, switch.balance_quantile, switch.top_k)

    for path, rows in _biases(config):
        if not is_frozen(frozen, "/".join(path)):
            own = jax.tree.map(lambda x, rows=rows: x[rows], tally)
            params = _changed(params, path, lambda bias_NE, own=own: moved(bias_NE, own))
    return params


def _biases(config: ModelConfig) -> Iterator[tuple[tuple[str, ...], slice]]:
    """Each stack of biases: its path, and which rows of the statistics are its layers'."""
    assert config.switch is not None
    parts, first = _PARTS[config.switch.experts_in], 0
    for stack, shape in config.stacks.items():
        for row in shape.blocks:
            within = [i for i, sparse in enumerate(row.sparse) if sparse]
            own = [(f"layer_{i}", part) for i in within for part in parts]
            after = first + row.num_blocks * len(own)
            for j, names in enumerate(own):
                path = (stack, row.name, *names, "switch", "router", "bias_E")
                yield path, slice(first + j, after, len(own))
            first = after


def _changed(params: Params, path: tuple[str, ...], change: Any) -> Params:
    name, *rest = path
    within = params[name]
    return {**params, name: _changed(within, (*rest,), change) if rest else change(within)}


def with_batch_loss(
    config: ModelConfig, outcome: Outcome, whole: Tally | None = None, parts: int = 1
) -> Outcome:
    """An outcome with the balance loss over the batch in its penalty, where that is asked for.

    Args:
      whole: of the batch of which the outcome is one of so many parts; None: it is of the whole.
    """
    if not is_over_batch(config):
        return outcome
    assert config.switch is not None
    assert outcome.stats is not None
    assert outcome.stats.tally is not None
    loss = batch_balance_loss(outcome.stats.tally, whole or outcome.stats.tally)
    penalty = outcome.penalty + parts * config.switch.balance_loss_weight * loss
    return dataclasses.replace(outcome, penalty=penalty)


def is_over_batch(config: ModelConfig) -> bool:
    """Whether the balance loss is of the whole batch's loads."""
    return config.switch is not None and config.switch.balance_loss_over == "batch"


def loads(outcome: Outcome) -> Tally:
    """The counts alone of a part of a batch."""
    assert outcome.stats is not None
    assert outcome.stats.tally is not None
    return dataclasses.replace(outcome.stats.tally, below_EQ=None, prob_E=None)
