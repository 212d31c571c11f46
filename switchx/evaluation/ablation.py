"""What each part of a trained model is worth: its validation loss with that part taken out."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from switchx import hosts
from switchx.evaluation.losses import Evaluator, MakeBatches, opened
from switchx.model import Model, Params
from switchx.model.experts import paths_of_widths
from switchx.terminal import Progress
from switchx.training.config import RunConfig
from switchx.training.metrics import layer_names

# A sublayer adds what its last matrix gives to the residual stream: with zeros there it is gone,
# its router's choices and losses stay.
_EXPERTS = ("feed_forward", "switch", "experts")
_LAST_MATRICES = {
    "self-attention": ("attention", "out_TD"),
    "cross-attention": ("cross_attention", "out_TD"),
    "feed-forward": ("feed_forward", "dense", "wo_FD"),
    "experts": (*_EXPERTS, "wo_EFD"),
}
_FEED_FORWARD = ("feed-forward", "experts")
# What an expert makes of its tokens: without the last matrix of its feed-forward these have the
# residual alone, without its projections a query, key and value of zeros, as those without room.
_OF_AN_EXPERT = {
    "attention": (("attention", "switch", "experts"), ("query_EDT", "key_value_EDT")),
    "feed_forward": (_EXPERTS, ("wo_EFD",)),
}


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The last matrix of a sublayer: a parameter's path and the block, its first index there.

    Attributes:
      expert: whose matrix alone it is, its second index; None of all.
    """

    path: tuple[str, ...]
    block: int
    expert: int | None = None


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
        (stack, kind, Part(f"{stack} {layer} {kind}", matrices))
        for stack in model.config.stacks
        for layer, kind, matrices in _sublayers(model, stack)
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


def experts_of(model: Model) -> list[list[Part]]:
    """Of each layer that has experts, in the order of `layer_names`, each of them alone."""
    switch = model.config.switch
    if switch is None:
        return []
    kinds = [
        kind
        for kind, there in (
            ("attention", switch.in_attention),
            ("feed_forward", switch.in_feed_forward),
        )
        if there
    ]
    names = iter(layer_names(model.config))
    found = []
    for stack, shape in model.config.stacks.items():
        for layer in shape.sparse_layers:
            blocks, within, block = shape.place(layer)
            for kind in kinds:
                path, matrices = _OF_AN_EXPERT[kind]
                whole = (stack, blocks, f"layer_{within}", *path)
                each = [
                    tuple(Matrix((*whole, *below, m), block, e) for m in matrices)
                    for below, experts in paths_of_widths(model.config)
                    for e in range(experts)
                ]
                name = next(names)
                found.append([Part(f"{name} expert {e}", own) for e, own in enumerate(each)])
    return found


def _sublayers(model: Model, stack: str) -> Iterator[tuple[int, str, tuple[Matrix, ...]]]:
    shape, widths = model.config.stacks[stack], paths_of_widths(model.config)
    for layer in range(shape.num_layers):
        blocks, within, block = shape.place(layer)
        for kind, path in _LAST_MATRICES.items():
            folder = (stack, blocks, f"layer_{within}", *path[:-1])
            below = [each for each, _ in widths] if kind == "experts" else [()]
            matrices = [Matrix((*folder, *each, path[-1]), block) for each in below]
            if matrices and _at(model.shapes, matrices[0].path) is not None:
                yield layer, kind, (*matrices,)


def _at(params: Params, path: tuple[str, ...]) -> Any:
    for name in path:
        params = params.get(name, {})
    return params or None if isinstance(params, dict) else params


def without(params: Params, part: Part) -> Params:
    """The parameters with zeros in place of a part's matrices; all others are the same arrays."""
    for matrix in part.matrices:
        params = _without(params, matrix.path, matrix)
    return params


def _without(params: Params, path: tuple[str, ...], matrix: Matrix) -> Params:
    name, *rest = path
    within = params[name]
    return {**params, name: _without(within, (*rest,), matrix) if rest else _zeroed(within, matrix)}


def _zeroed(weights_N: jax.Array, matrix: Matrix) -> jax.Array:
    """Chosen and not multiplied by 0, which would keep what is not finite; lies where it lay."""
    out = np.arange(len(weights_N)) == matrix.block
    if matrix.expert is not None:
        out = out[:, None] & (np.arange(weights_N.shape[1]) == matrix.expert)
    out = out.reshape(out.shape + (1,) * (weights_N.ndim - out.ndim))
    choose = jax.jit(jnp.where, out_shardings=weights_N.sharding)
    return choose(out, jnp.zeros((), weights_N.dtype), weights_N)


def losses_without(
    evaluator: Evaluator, params: Params, parts: Sequence[Part]
) -> tuple[float, list[float]]:
    """The whole model's loss, and that without each part.

    Parameters are arguments of the compiled evaluation: it is compiled once for all of them.
    """
    whole = evaluator(params)[0]["loss"]
    return whole, [evaluator(without(params, part))[0]["loss"] for part in parts]


def ablate(
    run: RunConfig,
    model_dir: str,
    make_batches: MakeBatches,
    step: int | None = None,
    limit: int | None = None,
    total: int | None = None,
) -> dict[str, Any]:
    """The validation loss of a checkpoint, whole and with each of its parts taken out.

    Shows how many batches were read.

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
        whole, losses = losses_without(evaluator, params, parts)
    rows = [
        {"part": part.name, "loss": loss, "nats": loss - whole}
        for part, loss in zip(parts, losses, strict=True)
    ]
    return {"step": step, **evaluator.share.values(), "loss": whole, "parts": rows}
