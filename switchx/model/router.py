"""The router: tokens to logits over experts, in float32 throughout."""

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.layers import parameter, truncated_normal
from switchx.model.noise import Noise
from switchx.sharding import gathered


def expert_capacity(config: SwitchConfig, group_size: int, train: bool) -> int:
    """Slots per expert and group (eq. 3 within a group): factor times an equal share of tokens.

    Rounded down as in the original code, at least min_capacity, at most the group. Tokens count
    once whatever top_k is, as in the original code of the top-2 baseline.
    """
    factor = config.train_capacity_factor if train else config.eval_capacity_factor
    # The small addition keeps 1.1 * 10 from being rounded down to 10.
    share = int(factor * group_size / config.num_experts + 1e-6)
    return min(group_size, max(share, config.min_capacity))


class Router(nnx.Module):
    """Logits from a product in float32, whatever the model's dtype (paper, section 2.4)."""

    def __init__(self, config: ModelConfig, switch: SwitchConfig, rngs: nnx.Rngs):
        self.exploration = switch.explorer
        own = switch.router_init_scale
        init = truncated_normal(config.init_scale if own is None else own, config.d_model)
        shape = (config.d_model, switch.num_experts)
        self.kernel_DE = parameter(rngs, init, shape, ("embed", None))

    def __call__(self, x_GSD: jax.Array, noise: Noise) -> jax.Array:
        """Returns router logits, float32 [G, S, E]. `noise`: keys per group."""
        x_GSD = self.exploration.disturb(x_GSD.astype(jnp.float32), noise)
        # HIGHEST: a TPU would otherwise take float32 operands through bfloat16 products.
        kernel_DE = gathered(self.kernel_DE[...], ("embed", None))
        return jnp.einsum("gsd,de->gse", x_GSD, kernel_DE, precision=jax.lax.Precision.HIGHEST)
