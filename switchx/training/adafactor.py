"""Adafactor's update of a matrix, written so that a compiler makes few passes over it.

An array too large for a cache is a pass over memory for each sum of it, and two more for whatever
of its size several of them share, as XLA's CPU compiler puts that down first.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

DECAY_RATE, EPSILON = 0.8, 1e-30
LEAST_SCALE = 1e-3  # of a parameter's RMS


def factored(least: int) -> optax.GradientTransformation:
    """Shazeer and Stern (2018) as T5 sets it: no first moment, update clipped to RMS 1, relative.

    It is optax.chain(scale_by_factored_rms, clip_by_block_rms, scale_by_param_block_rms), and has
    their state.

    Args:
      least: the least of the two longest dimensions of a matrix that is factored.
    """
    chain = optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=DECAY_RATE, min_dim_size_to_factor=least, epsilon=EPSILON
        ),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(LEAST_SCALE),
    )

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        before, *rest = state
        share = (before.count + 1.0) ** -DECAY_RATE  # of this step's squares in the averages

        of_one = functools.partial(_update, least, share)
        updated = jax.tree.map(of_one, gradients, before.v_row, before.v_col, before.v, params)
        names = ("update", "v_row", "v_col", "v")
        update, v_row, v_col, v = (
            jax.tree.map(lambda each, name=name: getattr(each, name), updated) for name in names
        )
        after = before._replace(
            count=optax.safe_increment(before.count), v_row=v_row, v_col=v_col, v=v
        )
        return update, (after, *rest)

    return optax.GradientTransformation(chain.init, update)


@dataclasses.dataclass
class _Updated:
    """Of one parameter. No pytree."""

    update: jax.Array
    v_row: jax.Array
    v_col: jax.Array
    v: jax.Array


def _update(
    least: int,
    share: jax.Array,
    g: jax.Array,
    v_row: jax.Array,
    v_col: jax.Array,
    v: jax.Array,
    parameter: jax.Array,
) -> _Updated:
    scale = jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(parameter))), LEAST_SCALE)
    *_, short, long = map(int, np.argsort(g.shape)) if g.ndim > 1 else (0, 0)
    if short == long or g.shape[short] < least:
        v = (1.0 - share) * v + share * (jnp.square(g) + EPSILON)
        update = g * v**-0.5
        clip = jnp.maximum(1.0, jnp.sqrt(jnp.mean(jnp.square(update))))
        return _Updated(update / clip * scale, v_row, v_col, v)
    # The sum over the longer dimension is the one of `global_norm`, and made once for both.
    v_row = (1.0 - share) * v_row + share * (jnp.mean(jnp.square(g), long) + EPSILON)
    v_col = (1.0 - share) * v_col + share * (jnp.mean(jnp.square(g), short) + EPSILON)
    row, col = jnp.expand_dims(v_row, long), jnp.expand_dims(v_col, short)
    row = row / jnp.mean(row, short, keepdims=True)
    update = g * row**-0.5 * col**-0.5
    if _on_one_device():
        # Without a factor that the update itself has: it would be put down for both.
        squares = jnp.sum(jnp.sum(g * (g * (1.0 / col)), long, keepdims=True) / row)
    else:  # the rows' sums would be sent
        squares = jnp.sum(jnp.square(update))
    clip = jnp.maximum(1.0, jnp.sqrt(squares / g.size))
    return _Updated(update / clip * scale, v_row, v_col, v)


def global_norm(gradients: Any) -> jax.Array:
    """The square root of the sum of all squares.

    On one device along the longer of the last two dimensions first: `factored` needs that sum too.
    """

    def squares(x: jax.Array) -> jax.Array:
        if x.ndim < 2 or not _on_one_device():
            return jnp.sum(jnp.square(x))
        longer = x.ndim - 2 + int(np.argsort(x.shape[-2:])[-1])
        # The barrier keeps both sums from being one of its own.
        return jnp.sum(jax.lax.optimization_barrier(jnp.sum(jnp.square(x), longer)))

    return jnp.sqrt(sum(map(squares, jax.tree.leaves(gradients))))


def _on_one_device() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1
