"""What the backward pass computes again, by policy (macro REMAT), and what is marked to be kept."""

import jax
from jax.ad_checkpoint import checkpoint_name

_KEPT = "kept"


def kept(x: jax.Array) -> jax.Array:
    """The same, which "dots" keeps: costly to compute again, or to move between devices again."""
    return checkpoint_name(x, _KEPT)


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
