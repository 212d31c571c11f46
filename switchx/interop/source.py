"""What a model of another program looks like to the import, and how its arrays are read."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from switchx.errors import UserError
from switchx.model import Params
from switchx.model.shape import StackShape
from switchx.training.freezing import merged, trained
from switchx.training.start import Arrays

Index = tuple[slice, ...]


class SpecialIds(NamedTuple):
    """Ids that a source says are padding, and end of sequence (None: it does not say)."""

    pad: int
    eos: int | None


class Source(Arrays, Protocol):
    """A model that another program wrote: its sizes are known, its numbers still on disk.

    Attributes:
      model_fields: what it says of the model, by names of gin parameters: "ModelConfig.d_model",
        "SwitchConfig.num_experts". "ModelConfig.switch" is always there, True or False. Gin may
        say the same again, but nothing else.
      step: steps it was trained for, or None if it does not say.
      notes: what to say to whoever imports it, a line each.
      special: its vocabulary's, where it says so.
      vocabulary: a SentencePiece model that came with it.
    """

    model_fields: dict[str, Any]
    step: int | None
    notes: list[str]
    special: SpecialIds | None
    vocabulary: bytes | None


def shape_fields(encoder: StackShape, decoder: StackShape) -> dict[str, Any]:
    """The fields of a Source that say which layers there are: by one number for both stacks where
    that is possible, with None for what is then left to be set of a stack alone. Experts are of one
    width."""
    stacks = {"encoder": encoder, "decoder": decoder}
    uneven = decoder.num_layers != encoder.num_layers
    fields: dict[str, Any] = {
        "ModelConfig.num_layers": encoder.num_layers,
        "ModelConfig.num_decoder_layers": decoder.num_layers if uneven else None,
    }
    if not any(stack.num_sparse for stack in stacks.values()):
        return fields
    fields["SwitchConfig.expert_widths"] = None
    own: dict[str, Any] = {f"SwitchConfig.{name}_sparse": s.sparse for name, s in stacks.items()}
    for every in (stack.sparse for stack in stacks.values() if isinstance(stack.sparse, int)):
        if all(StackShape.of(stack.num_layers, every) == stack for stack in stacks.values()):
            own = {"SwitchConfig.every": every, **dict.fromkeys(own)}
            break
    return fields | own


def build(leaf: jax.ShapeDtypeStruct, leading: int, read: Callable[..., np.ndarray]) -> jax.Array:
    """One parameter out of many arrays, each shard made for the device where it belongs.

    Args:
      leaf: shape, dtype and sharding of the parameter.
      leading: how many of its first dimensions (blocks, experts) count arrays of the source.
      read: called as read(numbers, index), where numbers are one array's place in the leading
        dimensions, and index is what is wanted of the rest.
    """

    def shard(index: Index | None) -> np.ndarray:
        assert index is not None
        index = tuple(slice(*s.indices(n)) for s, n in zip(index, leaf.shape, strict=True))
        out = np.empty([s.stop - s.start for s in index], leaf.dtype)
        for numbers in places(index[:leading]):
            own = tuple(n - s.start for n, s in zip(numbers, index, strict=False))
            out[own] = read(numbers, index[leading:])
        return out

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, shard)


def with_biases(abstract: Params, read: Callable[[Params], Params]) -> Params:
    """What is read of a program whose routers have no biases for the choice; ours begin at zero.

    Args:
      abstract: of all parameters.
      read: is given that of those which the program has.
    """
    params = merged(abstract, read(trained(abstract, ())))

    def of(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            return leaf
        return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)

    return jax.tree.map(of, params)


def check_finite(array: np.ndarray, name: str) -> np.ndarray:
    """Returns what was read of the tensor of that name, or raises UserError: it is no model."""
    wrong = int(array.size - np.count_nonzero(np.isfinite(array)))
    if wrong:
        raise UserError(
            f"{name} holds {wrong:,} numbers that are not finite: import another checkpoint, or "
            "another copy of this one."
        )
    return array


def places(index: Index) -> Iterator[tuple[int, ...]]:
    """All tuples of numbers in a box of slices."""
    return itertools.product(*(range(s.start, s.stop) for s in index))
