"""The experts: feed-forward networks stacked on a leading E axis."""

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.layers import parameter, truncated_normal
from switchx.model.noise import Noise, dropout
from switchx.sharding import constrain


class Experts(nnx.Module):
    """E feed-forward networks of the model's activation, each on its own tokens."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        assert config.switch is not None
        E, D, F = config.switch.num_experts, config.d_model, config.d_ff
        self.config = config
        into = truncated_normal(config.init_scale, D)
        if config.activation == "geglu":
            self.gate_EDF = parameter(rngs, into, (E, D, F), ("expert", "embed", "mlp"))
        self.wi_EDF = parameter(rngs, into, (E, D, F), ("expert", "embed", "mlp"))
        outof = truncated_normal(config.init_scale, F)
        self.wo_EFD = parameter(rngs, outof, (E, F, D), ("expert", "mlp", "embed"))

    def __call__(self, x_EGCD: jax.Array, noise_G: Noise | None) -> jax.Array:
        """[E, G, C, D] to the same; `noise_G` drops the interim activations (expert dropout)."""
        h_EGCF = self._project(x_EGCD, self.wi_EDF)
        if self.config.activation == "geglu":
            h_EGCF = jax.nn.gelu(self._project(x_EGCD, self.gate_EDF)) * h_EGCF
        else:
            h_EGCF = jax.nn.relu(h_EGCF)
        h_EGCF = self._dropout(h_EGCF, noise_G)
        h_EGCF = constrain(h_EGCF, "expert", "expert_group", None, "mlp")
        return jnp.einsum("egcf,efd->egcd", h_EGCF, self.wo_EFD[...].astype(x_EGCD.dtype))

    def _project(self, x_EGCD: jax.Array, kernel_EDF: nnx.Param) -> jax.Array:
        return jnp.einsum("egcd,edf->egcf", x_EGCD, kernel_EDF[...].astype(x_EGCD.dtype))

    def _dropout(self, h_EGCF: jax.Array, noise_G: Noise | None) -> jax.Array:
        assert self.config.switch is not None
        rate = self.config.switch.expert_dropout_rate
        if rate is None:
            rate = self.config.dropout_rate
        # The groups lead for their keys' sake only: the swaps fuse away.
        return dropout(h_EGCF.swapaxes(0, 1), rate, noise_G).swapaxes(0, 1)
