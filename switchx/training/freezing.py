"""Which parameters a run trains: FREEZE leaves the others as they are.

What is frozen is no part of what is differentiated, nor of what the optimizer is given: it has no
gradient, no state and no decay.
"""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

from switchx.errors import UserError
from switchx.model import Model, Params, forward_flops, train_flops
from switchx.model.groups import GROUPS, group_of, product_flops
from switchx.training.adapting import named
from switchx.training.config import RunConfig

Patterns = Sequence[str]  # of FREEZE: groups, and patterns of names


_BIAS = "router/bias_E"  # the step moves it, by what the batch did (`switchx.training.balance`)


def is_frozen(frozen: Patterns, name: str) -> bool:
    """Whether FREEZE names a parameter."""
    return group_of(name) in frozen or any(fnmatch.fnmatchcase(name, each) for each in frozen)


def trained(tree: Params, frozen: Patterns, within: str = "") -> Params:
    """Of a tree nested like the parameters, what belongs to those that the optimizer trains."""
    kept: Params = {}
    for key, node in tree.items():
        name = f"{within}{key}"
        if isinstance(node, dict):
            below = trained(node, frozen, f"{name}/")
            if below:
                kept[key] = below
        elif not is_frozen(frozen, name) and not name.endswith(_BIAS):
            kept[key] = node
    return kept


def merged(whole: Params, part: Params) -> Params:
    """A tree with what another, as `trained` gives it, has in the places of its own."""

    def of(key: str, node: Any) -> Any:
        if key not in part:
            return node
        return merged(node, part[key]) if isinstance(node, dict) else part[key]

    return {key: of(key, node) for key, node in whole.items()}


def num_trained(shapes: Params, frozen: Patterns) -> int:
    """How many of the parameters are trained."""
    return sum(math.prod(leaf.shape) for leaf in named(trained(shapes, frozen)).values())


def step_flops(run: RunConfig, model: Model) -> int:
    """FLOPs of a step that the model needs: `train_flops`, without gradients of what is frozen.

    The forward pass of a teacher that computes counts.
    """
    batch, frozen = run.batch, run.optimizer.frozen
    lengths = (batch.input_length, batch.target_length)
    saved = sum(
        product_flops(run.model, name, math.prod(leaf.shape), *lengths)
        for name, leaf in named(model.shapes).items()
        if is_frozen(frozen, name)
    )
    own = train_flops(run.model, *lengths) - saved
    return batch.batch_size * (own + teacher_flops(run))


def teacher_flops(run: RunConfig) -> int:
    """FLOPs of its teacher's forward pass of one sequence; 0 of a run that computes with none."""
    teacher = run.teacher.computed if run.teacher else None
    if teacher is None:
        return 0
    return forward_flops(teacher, run.batch.input_length, run.batch.target_length)


def check(frozen: Patterns, shapes: Params) -> None:
    """Raises UserError where FREEZE names what the model does not have, or all that it has."""
    names = sorted(named(shapes))
    for each in frozen:
        if not any(is_frozen((each,), name) for name in names):
            raise UserError(
                f"FREEZE={tuple(frozen)!r}: {each!r} is no parameter of this model: name a group "
                f"({', '.join(GROUPS)}) that it has, or a pattern of names as in model_info.txt, "
                f"such as {names[0]!r}."
            )
    if not trained(shapes, frozen):
        raise UserError(
            f"FREEZE={tuple(frozen)!r} freezes all {len(names)} parameters of this model: leave "
            "some to train."
        )
