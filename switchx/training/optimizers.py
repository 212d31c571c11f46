"""Optimizers by name, each a function that makes an optax transformation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from switchx.model import Params
from switchx.training.adafactor import factored
from switchx.training.config import OPTIMIZERS, OptimizerConfig
from switchx.training.freezing import Patterns, trained
from switchx.training.unit_clipping import batch_axes, clip_by_unit

Maker = Callable[[OptimizerConfig, optax.Schedule, Params], optax.GradientTransformation]

# T5X's rule: matrices are factored where that saves memory, experts' always.
MIN_DIM_SIZE_TO_FACTOR = 128
MIN_EXPERT_DIM_SIZE_TO_FACTOR = 1

MUON_MOMENTUM = 0.95
MUON_RMS = 0.2  # of an update: AdamW's, so that one learning rate serves both


_NOTHING = optax.identity()


def optimizer(name: str) -> Callable[[Maker], Maker]:
    """Registers a function under a name, which OPTIMIZER then accepts.

    It is called with the configuration, the learning rate as a function of the step, and the
    logical axes of the parameters that are trained, and returns any optax transformation, learning
    rate included. Where its state lies follows from the parameters (`state_layout`).
    """

    def register(make: Maker) -> Maker:
        OPTIMIZERS[name] = make
        return make

    return register


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, axes: Params
) -> optax.GradientTransformation:
    """The optimizer for parameters with these logical axes, behind the clipping of gradients.

    It is given all parameters, and gradients of those that are trained, of which it has a state.
    """
    axes = trained(axes, config.frozen)
    own = OPTIMIZERS[config.name](config, schedule, axes)
    if config.clip_global_norm is not None:
        own = _around(own, before=optax.clip_by_global_norm(config.clip_global_norm))
    if config.clip_by_unit is not None:
        own = _around(own, before=clip_by_unit(config.clip_by_unit, axes))
    return _of_trained(own, config.frozen)


def _of_trained(tx: optax.GradientTransformation, frozen: Patterns) -> optax.GradientTransformation:
    """An optimizer that sees nothing of frozen parameters and of routers' biases."""

    def init(params: Params) -> Any:
        return tx.init(trained(params, frozen))

    def update(gradients: Params, state: Any, params: Params) -> tuple[Params, Any]:
        return tx.update(gradients, state, trained(params, frozen))

    return optax.GradientTransformation(init, update)


def _around(
    tx: optax.GradientTransformation,
    before: optax.GradientTransformation = _NOTHING,
    after: optax.GradientTransformation = _NOTHING,
) -> optax.GradientTransformation:
    """An optimizer between two that keep no state.

    Its state is that of `tx` alone, where a chain's has a part for each link: a resume may clip or
    decay where the run before did not.
    """

    def update(gradients: Params, state: Any, params: Params) -> tuple[Params, Any]:
        gradients, _ = before.update(gradients, optax.EmptyState(), params)
        updates, state = tx.update(gradients, state, params)
        updates, _ = after.update(updates, optax.EmptyState(), params)
        return updates, state

    return optax.GradientTransformation(tx.init, update)


@optimizer("adamw")
def _adamw(
    config: OptimizerConfig, schedule: optax.Schedule, axes: Params
) -> optax.GradientTransformation:
    """Loshchilov and Hutter (2019): the decay is scaled by the learning rate, as the update is."""
    return optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


@optimizer("adafactor")
def _adafactor(
    config: OptimizerConfig, schedule: optax.Schedule, axes: Params
) -> optax.GradientTransformation:
    """Adafactor as T5X has it; with its decay, p becomes (1 - weight_decay) p - rate * update.

    T5X's `weight_decay_rate` (t5x/adafactor.py, apply_param_gradient) is decoupled from the
    learning rate and falls on every parameter.
    """
    make = functools.partial(_factored, momentum=config.momentum)
    own = optax.chain(_per_matrix(make, axes), optax.scale_by_learning_rate(schedule))
    if not config.weight_decay:
        return own
    return _around(own, after=optax.add_decayed_weights(-config.weight_decay))


@optimizer("muon")
def _muon(
    config: OptimizerConfig, schedule: optax.Schedule, axes: Params
) -> optax.GradientTransformation:
    """Muon for every layer's and every expert's matrix, heads side by side; AdamW for the rest.

    Jordan (2024): Nesterov's momentum, its singular values brought near 1 by five Newton-Schulz
    steps; scaled by 0.2 sqrt(max(rows, columns)), as Liu et al. (2025, 2502.16982) do, an update is
    as long as AdamW's. The decay is AdamW's too. Embeddings, routers, which are as much of a
    classifier, tables of positions and norms are AdamW's.
    """
    steps = {
        "adamw": _adamw(config, schedule, axes),
        "muon": optax.chain(
            optax.trace(MUON_MOMENTUM, nesterov=True),
            optax.stateless_with_tree_map(lambda x, _: _orthogonal(x)),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(schedule),
        ),
    }
    labels = jax.tree.map(
        lambda own: "muon" if _of_a_layer(own) else "adamw",
        axes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return optax.partition(steps, labels)


def _of_a_layer(axes: tuple[str | None, ...]) -> bool:
    """Whether these are of a stack of a layer's matrices, a router's excepted."""
    return axes[0] == "layers" and None not in axes and len(axes) - batch_axes(axes) == 2


def _orthogonal(x: jax.Array) -> jax.Array:
    """Each matrix of a stack, its last two dimensions, as orthogonal as optax's Muon makes it."""
    if x.ndim > 2:
        return jax.vmap(_orthogonal)(x)
    # Without a momentum of its own. Over a stack that is merged into one dimension, as optax
    # does it, experts would be gathered to every device.
    own = optax.contrib.scale_by_muon(beta=0.0, nesterov=False)
    return MUON_RMS * jnp.sqrt(max(x.shape)) * own.update(x, own.init(x))[0]


def _factored(leading: int, momentum: float) -> optax.GradientTransformation:
    """Adafactor of parameters with so many `batch_axes`, two for those of experts.

    With `momentum` its steps are averaged last, so that the average follows a parameter that grows.
    """
    least = MIN_EXPERT_DIM_SIZE_TO_FACTOR if leading == 2 else MIN_DIM_SIZE_TO_FACTOR
    steps = factored(least)
    return optax.chain(steps, optax.ema(momentum, debias=False)) if momentum else steps


def _per_matrix(
    make: Callable[[int], optax.GradientTransformation], axes: Params
) -> optax.GradientTransformation:
    """Treats every layer's and every expert's matrix as a parameter of its own.

    Stacking layers to scan them must not change what Adafactor's statistics are taken over.
    """
    labels = jax.tree.map(batch_axes, axes, is_leaf=lambda x: isinstance(x, tuple))
    return optax.partition(
        {n: _mapped(make(n), n) for n in sorted(set(jax.tree.leaves(labels)))}, labels
    )


def _mapped(tx: optax.GradientTransformation, times: int) -> optax.GradientTransformation:
    """Acts on each entry along as many leading axes; what counts steps counts them once for all."""
    for _ in range(times):
        tx = _over_entries(tx)
    return tx


def _over_entries(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Over the leading axis, of parameters of equal length at a time; of one length, as it is."""
    equal = _over_equal_entries(tx)

    def init(params: Params) -> Any:
        parts = _by_length(params)
        if len(parts) == 1:
            return equal.init(params)
        return {length: equal.init(part) for length, part in parts.items()}

    def update(updates: Params, state: Any, params: Params) -> tuple[Params, Any]:
        parts = _by_length(params)
        if len(parts) == 1:
            return equal.update(updates, state, params)
        own = _by_length(updates)
        found = {n: equal.update(own[n], state[n], parts[n]) for n in parts}
        done = _joined([part for part, _ in found.values()])
        return done, {n: after for n, (_, after) in found.items()}

    return optax.GradientTransformation(init, update)


def _by_length(params: Params) -> dict[int, Params]:
    """The parameters by the length of their leading axis, masked where it is another."""
    lengths = sorted({x.shape[0] for x in jax.tree.leaves(params)})
    masked = optax.MaskedNode()
    return {
        n: jax.tree.map(lambda x, n=n: x if x.shape[0] == n else masked, params) for n in lengths
    }


def _joined(parts: list[Params]) -> Params:
    """One tree of several that are masked where the others are not."""
    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    first = lambda *xs: next((x for x in xs if not masked(x)), xs[0])  # noqa: E731
    return jax.tree.map(first, *parts, is_leaf=masked)


def _over_equal_entries(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    def axes(params: Params) -> Any:
        entry = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
        return jax.tree.map(lambda x: 0 if x.ndim else None, jax.eval_shape(tx.init, entry))

    def init(params: Params) -> Any:
        return jax.vmap(tx.init, out_axes=axes(params))(params)

    def update(updates: Params, state: Any, params: Params) -> tuple[Params, Any]:
        own = axes(params)
        return jax.vmap(tx.update, (0, own, 0), (0, own))(updates, state, params)

    return optax.GradientTransformation(init, update)
