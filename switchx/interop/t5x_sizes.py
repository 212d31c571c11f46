"""The sizes of a model, from the names and shapes of a T5X checkpoint's arrays."""

import itertools
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.interop.source import shape_fields
from switchx.model.shape import StackShape

Shapes = Mapping[str, tuple[int, ...]]


def model_fields(shapes: Shapes, stacks: Mapping[str, StackShape]) -> dict[str, Any]:
    """Gin parameters of the model (`switchx.interop.Source.model_fields`).

    Capacities, group sizes and dropout leave no trace in arrays, nor does the farthest distance
    of the relative positions (T5's is 128), nor which function gates (T5X's models use GELU).

    Args:
      shapes: of the parameters, without the leading "target/".
      stacks: their `stack_shapes`.

    Raises:
      UserError: an array that says a size is missing.
    """
    vocab_size, d_model = _shape(shapes, "token_embedder/embedding", 2)
    num_heads, buckets = _shape(shapes, "encoder/relpos_bias/rel_embedding", 2)
    _, joined = _shape(shapes, "encoder/layers_0/attention/query/kernel", 2)
    if joined % num_heads:
        raise UserError(
            f"The T5X checkpoint's {num_heads} relative position heads do not divide the "
            f"attention's width of {joined}."
        )
    # wi_0 and wi_1 where they are gated.
    gated = any(name.endswith("/wi_0/kernel") for name in shapes)
    first = 0 in stacks["encoder"].sparse_layers
    inner = "mlp/expert" if first else "mlp"
    d_ff = _shape(shapes, f"encoder/layers_0/{inner}/wo/kernel", 3 if first else 2)[-2]
    sparse = [(name, shape.sparse_layers[0]) for name, shape in stacks.items() if shape.num_sparse]
    fields = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_ff": d_ff,
        "d_kv": joined // num_heads,
        "num_heads": num_heads,
        "activation": "geglu" if gated else "relu",
        "tied_embeddings": "decoder/logits_dense/kernel" not in shapes,
        "scale_logits": None,
        "bias_per_layer": False,
        "relative_buckets": buckets,
        "switch": bool(sparse),
    }
    found = {f"ModelConfig.{name}": value for name, value in fields.items()}
    if sparse:
        stack, layer = sparse[0]
        router = f"{stack}/layers_{layer}/mlp/router/router_weights/w/kernel"
        found["SwitchConfig.num_experts"] = _shape(shapes, router, 2)[1]
    return found | shape_fields(**stacks)


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if name not in shapes:
        raise UserError(f"The T5X checkpoint has no array target/{name}.")
    shape = shapes[name]
    if len(shape) != rank or 0 in shape:
        raise UserError(
            f"target/{name} of the T5X checkpoint has the shape {list(shape)}; "
            f"switchx reads models where it has {rank} dimensions."
        )
    return shape


def stack_shapes(shapes: Shapes) -> dict[str, StackShape]:
    """The layers of both stacks, from the names alone."""
    return {stack: _stack_shape(shapes, stack) for stack in ("encoder", "decoder")}


def _stack_shape(shapes: Shapes, stack: str) -> StackShape:
    numbers = itertools.count()
    there = lambda n: f"{stack}/layers_{n}/pre_mlp_layer_norm/scale" in shapes  # noqa: E731
    layers = sum(1 for _ in itertools.takewhile(there, numbers))
    experts = (f"{stack}/layers_{n}/mlp/expert/wo/kernel" in shapes for n in range(layers))
    return StackShape.of(layers, tuple(n for n, sparse in enumerate(experts) if sparse))
