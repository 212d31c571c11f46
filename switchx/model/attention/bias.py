"""T5's relative position bias: one number per head and bucket of distance."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.layers import normal, parameter


class RelativePositionBias(nnx.Module):
    """One learned bias per head and bucket of distance, of a stack's layers (T5) or one (UMT5)."""

    def __init__(self, config: ModelConfig, bidirectional: bool, rngs: nnx.Rngs):
        self.config = config
        self.bidirectional = bidirectional
        shape = (config.num_heads, config.relative_buckets)
        init = normal(config.d_model**-0.5)
        self.table_HR = parameter(rngs, init, shape, ("heads", "buckets"))

    def __call__(self, L: int, M: int) -> jax.Array:
        """float32 [H, L+M-1] from L queries to M keys: element L-1 - l + m is from l to m."""
        distance = np.arange(-(L - 1), M)
        bucket = relative_position_bucket(
            distance,
            self.bidirectional,
            self.config.relative_buckets,
            self.config.relative_max_distance,
        )
        return self.table_HR[...][:, bucket]

    def of_kept(self, position_B: jax.Array, room: int, hypotheses: int) -> jax.Array:
        """float32 [B, H, 1, room P], from tokens at these positions to what is kept (see Kept)."""
        age_BC = jnp.maximum(position_B[:, None] - jnp.arange(room), 0)
        # Of a query as old as the room is wide to the first key: by age.
        bias_HC = self(room, 1)[:, ::-1]
        bias_BHC = bias_HC[:, age_BC].swapaxes(0, 1)
        return jnp.repeat(bias_BHC, hypotheses, axis=-1)[:, :, None]


def toeplitz(diagonal_HW: jax.Array, L: int, M: int) -> jax.Array:
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
