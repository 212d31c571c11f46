"""What the backward pass computes again, by policy (macro REMAT), and what is marked to be kept."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from switchx.sharding import platform

_KEPT = "kept"


def kept(x: jax.Array) -> jax.Array:
    """The same, which "dots" keeps: costly to compute again, or to move between devices again."""
    return checkpoint_name(x, _KEPT)


def recomputed(
    function: Callable,
    static_argnums: tuple[int, ...] = (),
    policy: Callable[..., bool] | None = None,
    looped: bool = True,
) -> Callable:
    """The function, computed again in the backward pass, which keeps its arguments alone.

    Behind barriers (JAX's prevent_cse), which keep the compiler from computing it once for both
    passes. On TPUs without, if it is `looped`: a loop over layers keeps the passes apart anyway,
    and what it has kept would be copied for barriers, in place of being read where it is used.

    Args:
      policy: what is kept besides, see POLICIES.
    """
    make = functools.partial(jax.checkpoint, function, static_argnums=static_argnums, policy=policy)
    behind_barriers, bare = make(), make(prevent_cse=False)

    @functools.wraps(function)
    def chosen(*args: Any) -> Any:
        return (bare if looped and platform() == "tpu" else behind_barriers)(*args)

    return chosen


_POLICIES = jax.checkpoint_policies


def held(x: jax.Array) -> jax.Array:
    """The same; on TPUs a line that the compiler moves nothing across, for a backward pass.

    It would otherwise compute and store early what is cheap to compute where it is used.
    """
    return jax.lax.platform_dependent(x, tpu=jax.lax.optimization_barrier, default=lambda x: x)


# "dots" keeps products with parameters, which experts' are to no policy of JAX's own, as their
# matrices are many. Not attention's products of activations, which are large and cheap.
POLICIES = {
    "dots": _POLICIES.save_from_both_policies(
        _POLICIES.dots_with_no_batch_dims_saveable, _POLICIES.save_only_these_names(_KEPT)
    ),
    "full": _POLICIES.nothing_saveable,
}
