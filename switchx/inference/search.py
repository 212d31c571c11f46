"""Answers token by token, each row at a position of its own.

Rows that have ended can so give their places in the batch to others while the rest goes on.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from switchx.model import Encoded, Model, ModelConfig, Params, Written


class Answering(NamedTuple):
    """What is known of each row's answer.

    Attributes:
      position_B: int32, of the token to be found next: how many there are.
      last_BP: int32, the token before it, of each hypothesis.
      going_B: bool, rows whose answer is not there yet.
      found: the method's own, every array's first dimension the batch.
    """

    position_B: jax.Array
    last_BP: jax.Array
    going_B: jax.Array
    found: Any


class Method(Protocol):
    """How tokens are chosen: a value that programs are compiled for."""

    @property
    def length(self) -> int:
        """Most tokens of an answer."""
        ...

    @property
    def hypotheses(self) -> int:
        """P, how many answers to a row are pursued at a time."""
        ...

    def begin(self, encoder_mask_BM: jax.Array, given: Any) -> Answering:
        """Nothing found yet; rows of padding alone are at their end.

        Args:
          given: what the method needs of each row, every array's first dimension the batch.
        """
        ...

    def step(
        self, answering: Answering, logits_BPV: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any, jax.Array | None]:
        """One more token: last_BP, going_B, found, and which hypothesis each continues [B, P].

        Of rows that are not going, nothing of it is used.
        """
        ...

    def best(self, answering: Answering) -> jax.Array:
        """int32 [B, L]: the answers, zeros after their ends."""
        ...


@functools.partial(jax.jit, static_argnames=("config", "method"))
def begin(
    config: ModelConfig, method: Method, params: Params, encoder_token_BM: jax.Array, given: Any
) -> tuple[Answering, Encoded]:
    """Reads a batch of inputs, int32, 0 is padding."""
    encoded = Model.of(config).bind(params).read(encoder_token_BM)
    return method.begin(encoded.mask_BM, given), encoded


@functools.partial(jax.jit, static_argnames=("config", "method", "room"))
def nothing_written(
    config: ModelConfig, method: Method, params: Params, encoded: Encoded, room: int
) -> Written:
    transformer = Model.of(config).bind(params)
    return transformer.nothing_written(encoded, room, method.hypotheses)


@functools.partial(
    jax.jit, static_argnames=("config", "method"), donate_argnames=("answering", "written")
)
def go_on(
    config: ModelConfig,
    method: Method,
    params: Params,
    answering: Answering,
    encoded: Encoded,
    written: Written,
    until: jax.Array,
) -> tuple[Answering, Written]:
    """Until at most so many rows are going, or one that does needs more room than there is."""
    transformer = Model.of(config).bind(params)

    def step(loop: tuple[Answering, Written]) -> tuple[Answering, Written]:
        now, written = loop
        # The position of a row that has ended may lie behind the room that the others need.
        at_B = jnp.minimum(now.position_B, written.room - 1)
        logits_BPV, written = transformer.decode_step(now.last_BP, at_B, encoded, written)
        last_BP, going_B, found, parent_BP = method.step(now, logits_BPV)
        written = written if parent_BP is None else written.continued(parent_BP)
        found = jax.tree.map(functools.partial(_where, now.going_B), found, now.found)
        position_B = now.position_B + now.going_B
        return Answering(position_B, last_BP, now.going_B & going_B, found), written

    def going(loop: tuple[Answering, Written]) -> jax.Array:
        now, written = loop
        full = jnp.any(now.going_B & (now.position_B >= written.room))
        return (jnp.sum(now.going_B) > until) & ~full

    return jax.lax.while_loop(going, step, (answering, written))


def _where(of_B: jax.Array, new_B: jax.Array, old_B: jax.Array) -> jax.Array:
    return jnp.where(of_B.reshape(-1, *(1,) * (new_B.ndim - 1)), new_B, old_B)


@functools.partial(jax.jit, donate_argnames=("answering", "encoded"))
def replace_rows(
    answering: Answering,
    encoded: Encoded,
    fresh: tuple[Answering, Encoded],
    place_SR: jax.Array,
    source_SR: jax.Array,
) -> tuple[Answering, Encoded]:
    """Puts rows of `fresh` in the places of others.

    A batch's rows lie on S devices or groups of them, b on each, and none moves to another.
    What the former rows have written need not be removed: nothing sees beyond its own position.

    Args:
      place_SR: int32, R places among a device's own rows; b and more are none.
      source_SR: int32, which of a device's own fresh rows comes there.
    """
    S, _ = place_SR.shape
    device_S1 = jnp.arange(S)[:, None]

    def moved(axis: int, old: jax.Array, new: jax.Array) -> jax.Array:
        apart = (*old.shape[:axis], S, old.shape[axis] // S, *old.shape[axis + 1 :])
        before = (slice(None),) * axis
        taken = new.reshape(apart)[(*before, device_S1, source_SR)]
        at = old.reshape(apart).at[(*before, device_S1, place_SR)]
        return at.set(taken, mode="drop").reshape(old.shape)

    answering = jax.tree.map(functools.partial(moved, 0), answering, fresh[0])
    cross = jax.tree.map(functools.partial(moved, 1), encoded.cross, fresh[1].cross)
    return answering, Encoded(cross, moved(0, encoded.mask_BM, fresh[1].mask_BM))


@functools.partial(jax.jit, static_argnames="room")
def resized(written: Written, room: int) -> Written:
    """See Written.resized."""
    return written.resized(room)


@functools.partial(jax.jit, static_argnames="method")
def best(method: Method, answering: Answering) -> jax.Array:
    """See Method.best."""
    return method.best(answering)


def search(
    model: Model, method: Method, params: Params, encoder_token_BM: jax.Array, given: Any
) -> Answering:
    """All of one batch to its end."""
    config = model.config
    answering, encoded = begin(config, method, params, encoder_token_BM, given)
    written = nothing_written(config, method, params, encoded, method.length)
    return go_on(config, method, params, answering, encoded, written, jnp.int32(0))[0]
