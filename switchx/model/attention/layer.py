"""The attention sub-layer: projections to heads and back, and what generation keeps."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.attention.attend import attend
from switchx.model.attention.visibility import Visibility
from switchx.model.attention.whole import weighted
from switchx.model.config import ModelConfig
from switchx.model.layers import normal, parameter, project
from switchx.model.noise import Noise, dropout
from switchx.model.switch_layer import Grouping, Routed
from switchx.sharding import constrain


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept:
    """Keys and values that generation keeps from step to step, [B, H, M, K], or [N, ...] of them.

    Heads stand before places: a step reads each head's keys in one piece, which on a CPU takes a
    fifth of the time that it takes where they lie apart.
    """

    key_BHMK: jax.Array
    value_BHMK: jax.Array

    @classmethod
    def of(cls, key_BMHK: jax.Array, value_BMHK: jax.Array) -> "Kept":
        return cls(key_BMHK.swapaxes(1, 2), value_BMHK.swapaxes(1, 2))

    def extended(
        self, number: jax.Array, position_B: jax.Array, key_BPHK: jax.Array, value_BPHK: jax.Array
    ) -> "Kept":
        """Of N blocks: with those of P hypotheses at each row's position, in block `number`.

        Position l of hypothesis p has the place l P + p.
        """
        B, P = key_BPHK.shape[:2]
        row_B1, place_BP = jnp.arange(B)[:, None], position_B[:, None] * P + jnp.arange(P)
        at = (number, row_B1, slice(None), place_BP)
        return Kept(self.key_BHMK.at[at].set(key_BPHK), self.value_BHMK.at[at].set(value_BPHK))

    def of_block(self, number: jax.Array) -> "Kept":
        """Those of one block of N."""
        return jax.tree.map(lambda x_N: jax.lax.dynamic_index_in_dim(x_N, number, 0, False), self)


class AttendingModule(nnx.Module):
    """What follows the projections to heads: attention, and the projection back to the model."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        HK = config.num_heads * config.d_kv
        self.config = config
        self.out_TD = parameter(rngs, normal(HK**-0.5), (HK, config.d_model), ("heads", "embed"))

    def __call__(
        self,
        query_BLHK: jax.Array,
        key_BMHK: jax.Array,
        value_BMHK: jax.Array,
        bias_HW: jax.Array | None,
        visibility: Visibility,
        noise: Noise,
    ) -> jax.Array:
        """Attends from the queries to the keys and values.

        Args:
          bias_HW: float32 [H, L+M-1], added to the logits, see RelativePositionBias.

        Returns:
          [B, L, D].
        """
        # T5 drops a key for all queries of a head at once: that is dropping its value.
        value_BMHK = dropout_values(value_BMHK, self.config.dropout_rate, noise)
        y_BLT = attend(query_BLHK, key_BMHK, value_BMHK, bias_HW, visibility)
        return project(y_BLT, self.out_TD[...], ("heads", "embed"))

    def to_kept(
        self,
        query_BPHK: jax.Array,
        kept: Kept,
        bias_BH1M: jax.Array | None,
        mask_BPM: jax.Array,
    ) -> jax.Array:
        """The same from P queries of each row to what is kept of it, [B, P, D].

        Args:
          mask_BPM: bool; P may be 1.
        """
        logits_BHPM = jnp.einsum(
            "bphk,bhmk->bhpm", query_BPHK, kept.key_BHMK, preferred_element_type=jnp.float32
        )
        if bias_BH1M is not None:
            logits_BHPM = logits_BHPM + bias_BH1M
        y_BHPK, _ = weighted(logits_BHPM, mask_BPM, kept.value_BHMK, "bhpm,bhmk->bhpk")
        return project(y_BHPK.swapaxes(1, 2), self.out_TD[...], ("heads", "embed"))


class Attention(AttendingModule):
    """Multi-head attention whose queries, keys and values are computed apart, so they can be kept.

    Projections are matrices [D, H*K]: the optimizer then factors them as T5 does.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, HK = config.d_model, config.num_heads * config.d_kv
        query = normal((D * config.d_kv) ** -0.5)
        self.query_DT = parameter(rngs, query, (D, HK), ("embed", "heads"))
        self.key_DT = parameter(rngs, normal(D**-0.5), (D, HK), ("embed", "heads"))
        self.value_DT = parameter(rngs, normal(D**-0.5), (D, HK), ("embed", "heads"))
        super().__init__(config, rngs)

    def _heads(self, x_BLD: jax.Array, kernel_DT: nnx.Param) -> jax.Array:
        x_BLT = project(x_BLD, kernel_DT[...], ("embed", "heads"))
        x_BLT = constrain(x_BLT, "batch", None, "heads")
        return x_BLT.reshape(*x_BLT.shape[:2], self.config.num_heads, self.config.d_kv)

    def queries(self, x_BLD: jax.Array) -> jax.Array:
        """Queries of the attending sequence, [B, L, H, K]."""
        return self._heads(x_BLD, self.query_DT)

    def keys_values(self, x_BMD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of the attended sequence, each [B, M, H, K]."""
        return self._heads(x_BMD, self.key_DT), self._heads(x_BMD, self.value_DT)

    def of_itself(
        self, x_BLD: jax.Array, mask_BL: jax.Array, grouping: Grouping, noise: Noise
    ) -> tuple[jax.Array, jax.Array, jax.Array, list[Routed]]:
        """Queries, keys and values of a sequence that attends to itself; nothing is routed."""
        return self.queries(x_BLD), *self.keys_values(x_BLD), []


def dropout_values(value_BMHK: jax.Array, rate: float, noise: Noise) -> jax.Array:
    """Dropout of attention weights whose mask is shared along the queries, on the values."""
    return dropout(value_BMHK, rate, noise, shared_axis=3)
