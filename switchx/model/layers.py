"""The small parts: parameters with logical axes, normalisation, feed-forward, embedding."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from switchx.model.activations import function_of
from switchx.model.config import ModelConfig
from switchx.model.noise import Noise, dropout
from switchx.model.product import product
from switchx.model.remat import kept, recomputed
from switchx.sharding import constrain, gathered, platform

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def normal(stddev: float) -> Initializer:
    """Normal of mean 0."""
    return lambda key, shape: stddev * jax.random.normal(key, shape, jnp.float32)


def truncated_normal(scale: float, fan_in: int) -> Initializer:
    """Normal of deviation sqrt(scale / fan_in), redrawn beyond two deviations (paper, section 2.4).

    As in the original code the variance is not corrected for the truncation; the initializers
    of jax.nn would, and make it 1.29 times larger.
    """
    stddev = math.sqrt(scale / fan_in)
    return lambda key, shape: stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape)


def parameter(
    rngs: nnx.Rngs, init: Initializer, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> nnx.Param:
    """A float32 parameter that carries the logical names of its dimensions as `axes`."""
    return nnx.Param(init(rngs.params(), shape), axes=axes)


# Recomputed in the backward pass: what the two below keep is then their input alone, once for
# all its uses, not each use's reshaped or normalised copy.


@functools.partial(recomputed, static_argnums=(2,))
def project(x_BLD: jax.Array, kernel_DF: jax.Array, axes: tuple[str, str]) -> jax.Array:
    """x kernel, [B, L, F], in the dtype of `x`, whose last dimensions are joined to match D.

    `axes` are the kernel's logical axes.

    As one product of matrices: with [B, L] apart, XLA transposes activations for the kernel's
    gradient, which makes a feed-forward layer's step a quarter slower on a CPU.
    """
    B, L = x_BLD.shape[:2]
    kernel_DF = gathered(kernel_DF.astype(x_BLD.dtype), axes)
    y_TF = product(x_BLD.reshape(B * L, kernel_DF.shape[0]), kernel_DF)
    return y_TF.reshape(B, L, kernel_DF.shape[1])


def _rms_norm(x_BLD: jax.Array, scale_D: jax.Array) -> jax.Array:
    """See RMSNorm."""
    if platform() == "tpu":
        return _by_kept_root(x_BLD, scale_D)
    return jax.checkpoint(lambda x_BLD, scale_D: _normed(x_BLD, scale_D)[0])(x_BLD, scale_D)


def _normed(x_BLD: jax.Array, scale_D: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The result, and 1 / sqrt(mean(x^2) + 1e-6), float32 [B, L, 1]."""
    x32_BLD = x_BLD.astype(jnp.float32)
    mean_square_BL1 = jnp.mean(jnp.square(x32_BLD), axis=-1, keepdims=True)
    inverse_BL1 = jax.lax.rsqrt(mean_square_BL1 + 1e-6)
    return (x32_BLD * inverse_BL1 * scale_D).astype(x_BLD.dtype), inverse_BL1


@jax.custom_vjp
def _by_kept_root(x_BLD: jax.Array, scale_D: jax.Array) -> jax.Array:
    """Keeps its input and a number of each token: its backward pass needs no mean but its own."""
    return _normed(x_BLD, scale_D)[0]


def _norm_fwd(x_BLD: jax.Array, scale_D: jax.Array) -> tuple[jax.Array, Any]:
    y_BLD, inverse_BL1 = _normed(x_BLD, scale_D)
    return y_BLD, (x_BLD, scale_D, kept(inverse_BL1))


def _norm_bwd(residuals: Any, dy_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BLD, scale_D, inverse_BL1 = residuals
    unit_BLD, dy32_BLD = x_BLD.astype(jnp.float32) * inverse_BL1, dy_BLD.astype(jnp.float32)
    dunit_BLD = dy32_BLD * scale_D
    inner_BL1 = jnp.mean(dunit_BLD * unit_BLD, axis=-1, keepdims=True)
    dx_BLD = inverse_BL1 * (dunit_BLD - unit_BLD * inner_BL1)
    return dx_BLD.astype(x_BLD.dtype), jnp.sum(dy32_BLD * unit_BLD, axis=(0, 1))


_by_kept_root.defvjp(_norm_fwd, _norm_bwd)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + 1e-6) * scale, in float32; no mean, no bias (T5)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        ones: Initializer = lambda key, shape: jnp.ones(shape, jnp.float32)  # noqa: E731
        self.scale_D = parameter(rngs, ones, (config.d_model,), ("embed",))

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        return _rms_norm(x_BLD, self.scale_D[...])


class FeedForward(nnx.Module):
    """f(x wi) wo, or (f(x gate) * (x wi)) wo, without biases; f is the model's activation."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F = config.d_model, config.d_ff
        self.config = config
        into = truncated_normal(config.init_scale, D)
        if config.gated:
            self.gate_DF = parameter(rngs, into, (D, F), ("embed", "mlp"))
        self.wi_DF = parameter(rngs, into, (D, F), ("embed", "mlp"))
        outof = truncated_normal(config.init_scale, F)
        self.wo_FD = parameter(rngs, outof, (F, D), ("mlp", "embed"))

    def __call__(self, x_BLD: jax.Array, noise: Noise) -> jax.Array:
        h_BLF = project(x_BLD, self.wi_DF[...], ("embed", "mlp"))
        function = function_of(self.config.activation, self.config.passes_apart)
        if self.config.gated:
            h_BLF = function(project(x_BLD, self.gate_DF[...], ("embed", "mlp"))) * h_BLF
        else:
            h_BLF = function(h_BLF)
        h_BLF = dropout(h_BLF, self.config.dropout_rate, noise, shared_axis=1)
        h_BLF = constrain(h_BLF, "batch", None, "mlp")
        return project(h_BLF, self.wo_FD[...], ("mlp", "embed"))


class Embedding(nnx.Module):
    """Token embedding N(0, 1), and the logits: tied or not, scaled by d_model^-0.5 or not."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        V, D = config.vocab_size, config.d_model
        self.config = config
        self.table_VD = parameter(rngs, normal(1.0), (V, D), ("vocab", "embed"))
        if not config.tied_embeddings:
            out = truncated_normal(config.init_scale, D)
            self.logits_DV = parameter(rngs, out, (D, V), ("embed", "vocab"))

    def embed(self, token_BL: jax.Array) -> jax.Array:
        """int [B, L] to the compute dtype, [B, L, D]."""
        table_VD = self.table_VD[...].astype(self.config.dtype)
        return gathered(table_VD, ("vocab", "embed"))[token_BL]

    @jax.named_scope("logits")
    def logits(self, x_BLD: jax.Array) -> jax.Array:
        """[B, L, D] to float32 logits [B, L, V]."""
        if self.config.scaled_logits:
            x_BLD = x_BLD * jnp.asarray(self.config.d_model**-0.5, x_BLD.dtype)
        if self.config.tied_embeddings:
            weights = gathered(self.table_VD[...].astype(x_BLD.dtype), ("vocab", "embed"))
            equation = "bld,vd->blv"
        else:
            weights = gathered(self.logits_DV[...].astype(x_BLD.dtype), ("embed", "vocab"))
            equation = "bld,dv->blv"
        if platform() == "cpu" and x_BLD.dtype == jnp.float32:
            weights = weights.T if self.config.tied_embeddings else weights
            B, L, D = x_BLD.shape
            y_BLV = product(x_BLD.reshape(B * L, D), weights).reshape(B, L, -1)
        else:
            y_BLV = _in_float32(equation, x_BLD, weights)
        return constrain(y_BLV, "batch", None, "vocab")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _in_float32(equation: str, x: jax.Array, weights: jax.Array) -> jax.Array:
    """A float32 product whose two gradients are products in the operands' dtype.

    JAX's own would be of float32 operands: the largest products of the step, at half the rate or
    less of a GPU, of an array twice as large.
    """
    return jnp.einsum(equation, x, weights, preferred_element_type=jnp.float32)


def _in_float32_bwd(
    equation: str, operands: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    _, back = jax.vjp(functools.partial(jnp.einsum, equation), *operands)
    return back(dy.astype(operands[0].dtype))


_in_float32.defvjp(
    lambda equation, *operands: (_in_float32(equation, *operands), operands), _in_float32_bwd
)
