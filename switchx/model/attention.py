"""T5 attention: relative position bias, no biases, no 1/sqrt(d) (folded into the query init)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
        bias_HLM: jax.Array | None,
        mask_BLM: jax.Array,
        noise: Noise,
    ) -> jax.Array:
        """Attends from the queries to the keys and values.

        Args:
          bias_HLM: float32, added to the logits.
          mask_BLM: bool, False where a key may not be seen; B and L may be 1.

        Returns:
          [B, L, D].
        """
        # T5 drops a key for all queries of a head at once: that is dropping its value.
        value_BMHK = dropout_values(value_BMHK, self.config.dropout_rate, noise)
        y_BLHK = attend(query_BLHK, key_BMHK, value_BMHK, bias_HLM, mask_BLM)
        return project(y_BLHK, self.out_TD[...], ("heads", "embed"))

    def to_kept(
        self,
        query_BPHK: jax.Array,
        kept: Kept,
        bias_BH1M: jax.Array | None,
        mask_BPM: jax.Array,
    ) -> jax.Array:
        """The same from P queries of each row to what is kept of it, [B, P, D]; P may be 1 in
        `mask_BPM`."""
        logits_BHPM = jnp.einsum(
            "bphk,bhmk->bhpm", query_BPHK, kept.key_BHMK, preferred_element_type=jnp.float32
        )
        if bias_BH1M is not None:
            logits_BHPM = logits_BHPM + bias_BH1M
        y_BPHK, _ = _weighted(logits_BHPM, mask_BPM, kept.value_BHMK, "bhpm,bhmk->bphk")
        return project(y_BPHK, self.out_TD[...], ("heads", "embed"))


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
        shape = (*x_BLT.shape[:2], self.config.num_heads, self.config.d_kv)
        return constrain(x_BLT.reshape(shape), "batch", None, "heads", None)

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


@jax.custom_vjp
def attend(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HLM: jax.Array | None,
    mask_BLM: jax.Array,
) -> jax.Array:
    """softmax(query key + bias) value, [B, L, H, K]; the softmax in float32.

    The backward pass computes the weights again from their log-sum-exp (Dao et al. 2022,
    FlashAttention, algorithm 4, without its tiles): keeping them costs more than the product.
    """
    return _attend_fwd(query_BLHK, key_BMHK, value_BMHK, bias_HLM, mask_BLM)[0]


Residuals = tuple[
    jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array, jax.Array
]


def _logits(query_BLHK: jax.Array, key_BMHK: jax.Array, bias_HLM: jax.Array | None) -> jax.Array:
    logits_BHLM = jnp.einsum(
        "blhk,bmhk->bhlm", query_BLHK, key_BMHK, preferred_element_type=jnp.float32
    )
    return logits_BHLM if bias_HLM is None else logits_BHLM + bias_HLM


def _masked(logits_BHLM: jax.Array, mask_BLM: jax.Array) -> jax.Array:
    # A finite value: a row that sees nothing then averages instead of turning into NaN.
    return jnp.where(mask_BLM[:, None], logits_BHLM, -1e10)


def _weighted(
    logits_BHLM: jax.Array, mask_BLM: jax.Array, value: jax.Array, equation: str
) -> tuple[jax.Array, jax.Array]:
    """The values' mean by the softmax of what is not masked, [B, L, H, K], and its log-sum-exp."""
    logits_BHLM = _masked(logits_BHLM, mask_BLM)
    max_BHL1 = jnp.max(logits_BHLM, axis=-1, keepdims=True)
    weight_BHLM = jnp.exp(logits_BHLM - max_BHL1)
    sum_BHL1 = jnp.sum(weight_BHLM, axis=-1, keepdims=True)
    y_BLHK = jnp.einsum(
        equation, weight_BHLM.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    y_BLHK = (y_BLHK / sum_BHL1.swapaxes(1, 2)).astype(value.dtype)
    return y_BLHK, max_BHL1 + jnp.log(sum_BHL1)


def _attend_fwd(
    query_BLHK: jax.Array,
    key_BMHK: jax.Array,
    value_BMHK: jax.Array,
    bias_HLM: jax.Array | None,
    mask_BLM: jax.Array,
) -> tuple[jax.Array, Residuals]:
    logits_BHLM = _logits(query_BLHK, key_BMHK, bias_HLM)
    y_BLHK, log_sum_BHL1 = _weighted(logits_BHLM, mask_BLM, value_BMHK, "bhlm,bmhk->blhk")
    return y_BLHK, (query_BLHK, key_BMHK, value_BMHK, bias_HLM, mask_BLM, y_BLHK, log_sum_BHL1)


def _attend_bwd(
    residuals: Residuals, dy_BLHK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, None]:
    query_BLHK, key_BMHK, value_BMHK, bias_HLM, mask_BLM, y_BLHK, log_sum_BHL1 = residuals
    dtype = query_BLHK.dtype
    logits_BHLM = _masked(_logits(query_BLHK, key_BMHK, bias_HLM), mask_BLM)
    # Masked again: where a row sees nothing, its log-sum-exp is too large to hold the sum.
    weight_BHLM = jnp.where(mask_BLM[:, None], jnp.exp(logits_BHLM - log_sum_BHL1), 0.0)
    dvalue_BMHK = jnp.einsum("bhlm,blhk->bmhk", weight_BHLM.astype(dtype), dy_BLHK)
    dweight_BHLM = jnp.einsum(
        "blhk,bmhk->bhlm", dy_BLHK, value_BMHK, preferred_element_type=jnp.float32
    )
    inner_BLH = jnp.sum(dy_BLHK.astype(jnp.float32) * y_BLHK.astype(jnp.float32), axis=-1)
    inner_BHL1 = inner_BLH.swapaxes(1, 2)[..., None]
    dlogits_BHLM = weight_BHLM * (dweight_BHLM - inner_BHL1)
    dbias_HLM = None
    if bias_HLM is not None:
        # A product with ones: XLA's CPU sum over the leading dimension is ten times slower.
        ones_B = jnp.ones(dlogits_BHLM.shape[0], jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        dbias_HLM = jnp.einsum("b,bhlm->hlm", ones_B, dlogits_BHLM, precision=highest)
    dlogits_BHLM = dlogits_BHLM.astype(dtype)
    dquery_BLHK = jnp.einsum("bhlm,bmhk->blhk", dlogits_BHLM, key_BMHK)
    dkey_BMHK = jnp.einsum("bhlm,blhk->bmhk", dlogits_BHLM, query_BLHK)
    return dquery_BLHK, dkey_BMHK, dvalue_BMHK, dbias_HLM, None


attend.defvjp(_attend_fwd, _attend_bwd)


class RelativePositionBias(nnx.Module):
    """One learned bias per head and bucket of distance, of a stack's layers (T5) or one (UMT5)."""

    def __init__(self, config: ModelConfig, bidirectional: bool, rngs: nnx.Rngs):
        self.config = config
        self.bidirectional = bidirectional
        shape = (config.num_heads, config.relative_buckets)
        init = normal(config.d_model**-0.5)
        self.table_HR = parameter(rngs, init, shape, ("heads", "buckets"))

    def __call__(self, L: int, M: int) -> jax.Array:
        """float32 [H, L, M]: the bias from query l to key m depends on m - l alone."""
        distance = np.arange(-(L - 1), M)
        bucket = relative_position_bucket(
            distance,
            self.bidirectional,
            self.config.relative_buckets,
            self.config.relative_max_distance,
        )
        bias_HW = self.table_HR[...][:, bucket]
        return _toeplitz(bias_HW, L, M)

    def of_kept(self, position_B: jax.Array, room: int, hypotheses: int) -> jax.Array:
        """float32 [B, H, 1, room P]: from tokens at these positions to what is kept of P
        hypotheses, see Kept."""
        age_BC = jnp.maximum(position_B[:, None] - jnp.arange(room), 0)
        # Of a query as old as the room is wide to the first key: by age.
        bias_HC = self(room, 1)[..., 0]
        bias_BHC = bias_HC[:, age_BC].swapaxes(0, 1)
        return jnp.repeat(bias_BHC, hypotheses, axis=-1)[:, :, None]


def _toeplitz(diagonal_HW: jax.Array, L: int, M: int) -> jax.Array:
    """[H, L+M-1] to [H, L, M] with out[h, l, m] = diagonal[h, L-1 - l + m].

    Reading rows of width W-1 out of one row of width W repeated steps back by one a row. The
    gradient of that is a sum, where that of indexing [L, M] would scatter every element.
    """
    H, W = diagonal_HW.shape[0], L + M  # one wider than needed, so that L = 1 has a row to read
    repeated = jnp.broadcast_to(jnp.pad(diagonal_HW, ((0, 0), (0, 1)))[:, None], (H, L, W))
    shifted = repeated.reshape(H, L * W)[:, L - 1 : L - 1 + L * (W - 1)]
    return shifted.reshape(H, L, W - 1)[:, :, :M]


def relative_position_bucket(
    distance: np.ndarray, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """T5's bucket of `distance` = key position - query position, int, any shape.

    Half of the buckets are exact small distances, half grow logarithmically up to
    max_distance; bidirectional attention has one such set for each sign.
    """
    offset = np.zeros_like(distance)
    away = np.maximum(-distance, 0)
    if bidirectional:
        num_buckets //= 2
        offset = np.where(distance > 0, num_buckets, 0)
        away = np.abs(distance)
    exact = num_buckets // 2
    log_share = np.log(np.maximum(away, 1) / exact) / np.log(max_distance / exact)
    # The small addition keeps exact powers (16, 32, ...) from falling into the bucket below.
    far = exact + np.floor(log_share * (num_buckets - exact) + 1e-6).astype(np.int32)
    return offset + np.where(away < exact, away, np.minimum(far, num_buckets - 1))
