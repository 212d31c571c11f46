"""Self-attention whose projections are experts (Switch Transformers, appendix A)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention import AttendingModule
from switchx.model.config import ModelConfig
from switchx.model.dispatch import Kernels, Operations
from switchx.model.layers import parameter, truncated_normal
from switchx.model.noise import Noise
from switchx.model.switch_config import SwitchConfig
from switchx.model.switch_layer import Grouping, Routed, SwitchLayer
from switchx.sharding import constrain, gathered


class ProjectionExperts(nnx.Module):
    """E projections to queries, and E to what is key and value at once.

    The initializers are those of the model's experts, the queries' variance divided by d_kv:
    attention has no 1/sqrt(d_kv) of its own. As a dispatcher needs them: see ExpertNetworks.
    """

    kernel_axes: ClassVar = {"heads_EDT": ("expert", "embed", "heads")}
    output_axis = "heads"

    def __init__(self, config: ModelConfig, switch: SwitchConfig, rngs: nnx.Rngs):
        D, HK = config.d_model, config.num_heads * config.d_kv
        shape, axes = (switch.num_experts, D, HK), ("expert", "embed", "heads")
        self.num_heads, self.d_kv = config.num_heads, config.d_kv
        self.dtype = switch.attention_dtype
        query = truncated_normal(config.init_scale / config.d_kv, D)
        self.query_EDT = parameter(rngs, query, shape, axes)
        key_value = truncated_normal(config.init_scale, D)
        self.key_value_EDT = parameter(rngs, key_value, shape, axes)

    @property
    def by_width(self) -> tuple["ProjectionExperts", ...]:
        """Themselves: all are alike."""
        return (self,)

    def kernels(self) -> dict[str, jax.Array]:
        """Both projections as one, [E, D, H*2*K], in SwitchConfig.attention_dtype.

        Each head's query stands beside its key: where heads are shared out over devices, a
        device then holds both of its own.
        """
        E, D, _ = self.query_EDT.shape
        heads = (E, D, self.num_heads, 1, self.d_kv)
        pair = [
            p[...].astype(self.dtype).reshape(heads) for p in (self.query_EDT, self.key_value_EDT)
        ]
        kernel_EDT = jnp.concatenate(pair, axis=3).reshape(E, D, -1)
        return {"heads_EDT": gathered(kernel_EDT, self.kernel_axes["heads_EDT"])}

    @staticmethod
    def compute(kernels: Kernels, x: jax.Array, operations: Operations) -> jax.Array:
        """Every expert's projection of its rows, in the kernels' dtype, returned in that of `x`.

        The paper's experts in attention diverge when they compute in bfloat16 (Table 10).
        """
        kernel = kernels["heads_EDT"]
        # A TPU would otherwise take float32 operands through bfloat16 products.
        precision = "highest" if kernel.dtype == jnp.float32 else None
        with jax.default_matmul_precision(precision):
            return operations.product(x.astype(kernel.dtype), kernel).astype(x.dtype)


class ExpertAttention(AttendingModule):
    """Multi-head self-attention: each token's expert makes its query, and its key and value.

    One router decides both. The projection back to the model is dense. A token that finds no
    room has a query, key and value of zeros. The projections are linear, as the paper says; the
    layer of its original code has a hidden layer with a ReLU before them.
    """

    def __init__(self, config: ModelConfig, switch: SwitchConfig, rngs: nnx.Rngs):
        self.switch = SwitchLayer(config, switch, ProjectionExperts(config, switch, rngs), rngs)
        super().__init__(config, rngs)

    def of_itself(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise
    ) -> tuple[jax.Array, jax.Array, jax.Array, list[Routed]]:
        """Queries, keys, and values that are the keys, each [B, L, H, K], and what routing did.

        Args:
          mask_BL, grouping, noise: as SwitchLayer takes them.
        """
        y_BLT, routed = self.switch(x_BLD, mask_BL, grouping, noise.fold(2))
        shape = (*y_BLT.shape[:2], self.config.num_heads, 2, self.config.d_kv)
        y_BLH2K = constrain(y_BLT.reshape(shape), "batch", None, "heads", None, None)
        query_BLHK, key_BLHK = y_BLH2K[..., 0, :], y_BLH2K[..., 1, :]
        return query_BLHK, key_BLHK, key_BLHK, [routed]
