"""The router: tokens to logits over experts, in float32 throughout."""

from fractions import Fraction

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.layers import parameter, truncated_normal
from switchx.model.noise import Noise
from switchx.model.remat import recomputed
from switchx.model.routing import Capacity, Pools, Slots
from switchx.model.switch_config import SwitchConfig
from switchx.sharding import gathered, platform


def expert_capacity(config: SwitchConfig, group_size: int, train: bool) -> Capacity:
    """Slots per expert and group (eq. 3 within a group): factor times its share of the tokens.

    An equal share, but for experts of several widths that are balanced by cost. Those of a pool
    (SwitchConfig.ragged_pools) have them together.

    Rounded down as in the original code, at least min_capacity, at most what there may be. Tokens
    count once whatever top_k is, as in the original code of the top-2 baseline.
    """
    factor = config.train_capacity_factor if train else config.eval_capacity_factor

    def slots(share: Fraction, most: int = group_size) -> int:
        # The small addition keeps 1.1 * 10 from being rounded down to 10.
        own = int(factor * group_size / float(1 / share) + 1e-6)
        return min(most, max(own, config.min_capacity))

    if config.ragged_pools is not None:
        numbers, pools = [number for number, _ in config.token_shares], config.ragged_pools
        # A token's choices are of different experts.
        most = group_size * min(config.top_k, config.num_experts // pools)
        return Pools((*numbers,), pools, slots(Fraction(1, pools), most))
    by_width = tuple((number, slots(share)) for number, share in config.token_shares)
    each = {own for _, own in by_width}
    return each.pop() if len(each) == 1 else Slots(by_width)


class Router(nnx.Module):
    """Logits from a product in float32, whatever the model's dtype (paper, section 2.4)."""

    def __init__(self, config: ModelConfig, switch: SwitchConfig, rngs: nnx.Rngs):
        self.exploration = switch.explorer
        own = switch.router_init_scale
        init = truncated_normal(config.init_scale if own is None else own, config.d_model)
        shape = (config.d_model, switch.num_experts)
        self.kernel_DE = parameter(rngs, init, shape, ("embed", None))
        # Without a draw: all else begins as in a model that has none.
        zeros_E = jnp.zeros((switch.num_experts,), jnp.float32)
        self.bias_E = nnx.Param(zeros_E, axes=(None,)) if switch.biased else None

    def __call__(self, x_GSD: jax.Array, noise: Noise) -> jax.Array:
        """Returns router logits, float32 [G, S, E]. `noise`: keys per group."""

        def logits(x_GSD: jax.Array, kernel_DE: jax.Array, noise: Noise) -> jax.Array:
            x_GSD = self.exploration.disturb(x_GSD.astype(jnp.float32), noise)
            # HIGHEST: a TPU would otherwise take float32 operands through bfloat16 products.
            kernel_DE = gathered(kernel_DE, ("embed", None))
            return jnp.einsum("gsd,de->gse", x_GSD, kernel_DE, precision=jax.lax.Precision.HIGHEST)

        if platform() == "tpu":  # or the tokens would be kept in float32, and what disturbs them
            logits = recomputed(logits)
        return logits(x_GSD, self.kernel_DE[...], noise)

    def bias(self) -> jax.Array | None:
        """What is added to the logits for the choice alone (routing/balance.py), float32 [E]."""
        return None if self.bias_E is None else self.bias_E[...]
