"""What each part of a trained model is worth: its validation loss with that part taken out."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx import hosts
from switchx.evaluation.losses import Evaluator, MakeBatches, opened
from switchx.model import Model, Params
from switchx.terminal import Progress
from switchx.training.config import RunConfig

# A sublayer adds what its last matrix gives to the residual stream: with zeros there it is gone,
# its router's choices and losses stay.
_LAST_MATRICES = {
    "self-attention": ("attention", "out_TD"),
    "cross-attention": ("cross_attention", "out_TD"),
    "feed-forward": ("feed_forward", "dense", "wo_FD"),
    "experts": ("feed_forward", "switch", "experts", "wo_EFD"),
}
_FEED_FORWARD = ("feed-forward", "experts")


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The last matrix of a sublayer: a parameter's path and the block, its first index there."""

    path: tuple[str, ...]
    block: int


@dataclasses.dataclass(frozen=True)
class Part:
    """What is taken out together.

    Attributes:
      name: such as "decoder 1 experts"; layers count from 0, as in the names of routing's figures.
    """

    name: str
    matrices: tuple[Matrix, ...]


def parts_of(model: Model) -> list[Part]:
    """Every sublayer of a model, then each stack's feed-forwards together, then all experts.

    A group of one sublayer is left out: it is in the list.
    """
    found = [
        (stack, kind, Part(f"{stack} {layer} {kind}", (matrix,)))
        for stack in model.config.stacks
        for layer, kind, matrix in _sublayers(model, stack)
    ]
    groups = [
        ("encoder feed-forwards", ("encoder",), _FEED_FORWARD),
        ("decoder feed-forwards", ("decoder",), _FEED_FORWARD),
        ("all experts", ("encoder", "decoder"), ("experts",)),
    ]
    parts = [part for *_, part in found]
    for name, stacks, kinds in groups:
        members = [part for stack, kind, part in found if stack in stacks and kind in kinds]
        if len(members) > 1:
            parts.append(Part(name, tuple(matrix for part in members for matrix in part.matrices)))
    return parts


def _sublayers(model: Model, stack: str) -> Iterator[tuple[int, str, Matrix]]:
    shape = model.config.stacks[stack]
    for layer in range(shape.num_layers):
        blocks, within, block = shape.place(layer)
        for kind, path in _LAST_MATRICES.items():
            whole = (stack, blocks, f"layer_{within}", *path)
            if _at(model.shapes, whole) is not None:
                yield layer, kind, Matrix(whole, block)


def _at(params: Params, path: tuple[str, ...]) -> Any:
    for name in path:
        params = params.get(name, {})
    return params or None if isinstance(params, dict) else params


def without(params: Params, part: Part) -> Params:
    """The parameters with zeros in place of a part's matrices; all others are the same arrays."""
    for matrix in part.matrices:
        params = _without(params, matrix.path, matrix.block)
    return params


def _without(params: Params, path: tuple[str, ...], block: int) -> Params:
    name, *rest = path
    changed = _zeroed(params[name], block) if not rest else _without(params[name], (*rest,), block)
    return {**params, name: changed}


def _zeroed(weights_N: jax.Array, block: int) -> jax.Array:
    """Chosen and not multiplied by 0, which would keep what is not finite; lies where it lay."""
    shape = (-1,) + (1,) * (weights_N.ndim - 1)
    out_N = (np.arange(len(weights_N)) == block).reshape(shape)
    choose = jax.jit(jnp.where, out_shardings=weights_N.sharding)
    return choose(out_N, jnp.zeros((), weights_N.dtype), weights_N)


def ablate(
    run: RunConfig,
    model_dir: str,
    make_batches: MakeBatches,
    step: int | None = None,
    limit: int | None = None,
    total: int | None = None,
) -> dict[str, Any]:
    """The validation loss of a checkpoint, whole and with each of its parts taken out.

    Parameters are arguments of the compiled evaluation: it is compiled once for all of them. Shows
    how many batches were read.

    Args:
      step: of the checkpoint; None is the newest.
      limit, total: as of `Evaluator`.

    Returns:
      "step", "examples", "examples_in_split" and "whole_split" as of `evaluate`, "loss" of the
      whole model, and "parts": of each its name, "part", its "loss" and the difference, "nats".
    """
    setup, params, step = opened(run, model_dir, step)
    parts = parts_of(setup.model)
    batches = limit and limit * (1 + len(parts))
    with Progress(batches, "batches", shown=hosts.is_first()) as progress:
        evaluator = Evaluator(setup, make_batches, limit=limit, total=total, read=progress.advance)
        whole = evaluator(params)[0]["loss"]
        losses = [evaluator(without(params, part))[0]["loss"] for part in parts]
    rows = [
        {"part": part.name, "loss": loss, "nats": loss - whole}
        for part, loss in zip(parts, losses, strict=True)
    ]
    return {"step": step, **evaluator.share.values(), "loss": whole, "parts": rows}
