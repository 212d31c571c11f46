"""Cross-entropy with label smoothing and z-loss, or against a teacher, summed in float32."""

import jax
import jax.numpy as jnp


@jax.named_scope("loss")
def token_sums(
    logits_BLV: jax.Array,
    target_BL: jax.Array,
    weight_BL: jax.Array,
    label_smoothing: float,
    z_loss: float,
) -> dict[str, jax.Array]:
    """Losses of next-token prediction.

    Label smoothing as in T5X: the target keeps 1 - s, each other token gets s / (V - 1), and
    the distribution's own entropy is taken off, so a perfect fit scores 0. The z-loss is
    z_loss * log(Z)^2 (MTF).

    Args:
      logits_BLV: float32.
      weight_BL: float32, 0 for padding.

    Returns:
      Sums over the weighted target tokens, float32 scalars: "cross_entropy" against the target
      alone, in nats; "objective", smoothed and with the z-loss; "z_loss", its share of that;
      "correct", targets whose logit is the highest; "weight", the tokens.
    """
    V = logits_BLV.shape[-1]
    log_z_BL = log_partition(logits_BLV)
    # A masked sum instead of indexing, so that a vocabulary shared out over devices stays there.
    is_target_BLV = jnp.arange(V, dtype=target_BL.dtype) == target_BL[..., None]
    chosen_BL = jnp.sum(jnp.where(is_target_BLV, logits_BLV, 0.0), axis=-1)
    cross_entropy_BL = log_z_BL - chosen_BL
    objective_BL = cross_entropy_BL
    if label_smoothing:
        keep, low = 1.0 - label_smoothing, label_smoothing / (V - 1)
        others_BL = V * log_z_BL - jnp.sum(logits_BLV, axis=-1) - cross_entropy_BL
        own_entropy = keep * jnp.log(keep) + label_smoothing * jnp.log(low)
        objective_BL = keep * cross_entropy_BL + low * others_BL + own_entropy
    z_loss_BL = z_loss * jnp.square(log_z_BL)
    correct_BL = chosen_BL >= jnp.max(jax.lax.stop_gradient(logits_BLV), axis=-1)
    total = lambda value_BL: jnp.sum(value_BL * weight_BL)  # noqa: E731
    return {
        "cross_entropy": total(cross_entropy_BL),
        "objective": total(objective_BL + z_loss_BL),
        "z_loss": total(z_loss_BL),
        "correct": total(correct_BL),
        "weight": jnp.sum(weight_BL),
    }


@jax.named_scope("soft_loss")
def soft_sums(
    logits_BLV: jax.Array, teacher_BLV: jax.Array, weight_BL: jax.Array, temperature: float
) -> dict[str, jax.Array]:
    """Losses against a teacher's distributions, both at a temperature (Hinton et al. 2015).

    Args:
      logits_BLV, teacher_BLV: float32.
      weight_BL: float32, 0 for padding.

    Returns:
      Sums over the weighted target tokens, float32 scalars, in nats: "soft", the cross-entropy
      against the teacher's distribution, and "teacher_kl", what of it is not its own entropy.
    """
    log_p_BLV = jax.nn.log_softmax(teacher_BLV / temperature)
    p_BLV, own_BLV = jnp.exp(log_p_BLV), logits_BLV / temperature
    soft_BL = log_partition(own_BLV) - jnp.sum(p_BLV * own_BLV, axis=-1)
    entropy_BL = -jnp.sum(p_BLV * log_p_BLV, axis=-1)
    return {
        "soft": jnp.sum(soft_BL * weight_BL),
        "teacher_kl": jnp.sum((soft_BL - entropy_BL) * weight_BL),
    }


@jax.named_scope("grouped")
def grouped(logits_BLV: jax.Array, id_BLK: jax.Array) -> jax.Array:
    """The logits of some tokens, and behind them one of all the others as one class.

    That is log sum exp of theirs, whose probability is the mass of the others ("ghost token" in
    Anshumann et al. 2025, arXiv 2503.16870). Not as log(1 - the mass of the K): where these have
    nearly all of it nothing would be left of that in float32.

    Args:
      logits_BLV: float32.
      id_BLK: whole numbers, no token twice.

    Returns:
      float32 [B, L, K + 1]; of all tokens, [B, L, V], there are no others.
    """
    chosen_BLK = jnp.take_along_axis(logits_BLV, id_BLK, axis=-1, mode="clip")
    if id_BLK.shape[-1] == logits_BLV.shape[-1]:
        return chosen_BLK
    all_V = jnp.ones(logits_BLV.shape[-1], bool)
    is_other_BLV = jax.vmap(jax.vmap(lambda id_K: all_V.at[id_K].set(False)))(id_BLK)
    other_BL = log_partition(jnp.where(is_other_BLV, logits_BLV, -jnp.inf))
    return jnp.concatenate([chosen_BLK, other_BL[..., None]], axis=-1)


@jax.custom_vjp
def log_partition(logits_BLV: jax.Array) -> jax.Array:
    """log sum exp over the vocabulary; the backward pass reads the logits again.

    JAX's own keeps the exponentials, a second array as large as the logits.
    """
    return jax.nn.logsumexp(logits_BLV, axis=-1)


def _log_partition_fwd(logits_BLV: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    log_z_BL = log_partition(logits_BLV)
    return log_z_BL, (logits_BLV, log_z_BL)


def _log_partition_bwd(residuals: tuple[jax.Array, jax.Array], d_BL: jax.Array) -> tuple[jax.Array]:
    logits_BLV, log_z_BL = residuals
    return (d_BL[..., None] * jnp.exp(logits_BLV - log_z_BL[..., None]),)


log_partition.defvjp(_log_partition_fwd, _log_partition_bwd)
