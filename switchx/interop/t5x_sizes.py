"""The sizes of a model, from the names and shapes of a T5X checkpoint's arrays."""

import itertools
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


def model_fields(shapes: Shapes) -> dict[str, Any]:
    """Gin parameters of the model (`switchx.interop.Source.model_fields`).

    Capacities, group sizes and dropout leave no trace in arrays, nor does the farthest distance
    of the relative positions (T5's is 128), nor which function gates (T5X's models use GELU).

    Args:
      shapes: of the parameters, without the leading "target/".

    Raises:
      UserError: an array that says a size is missing, or the layers do not form equal blocks.
    """
    vocab_size, d_model = _shape(shapes, "token_embedder/embedding", 2)
    num_heads, buckets = _shape(shapes, "encoder/relpos_bias/rel_embedding", 2)
    _, joined = _shape(shapes, "encoder/layers_0/attention/query/kernel", 2)
    if joined % num_heads:
        raise UserError(
            f"The T5X checkpoint's {num_heads} relative position heads do not divide the "
            f"attention's width of {joined}."
        )
    layers = _num_layers(shapes)
    sparse = _sparse_layers(shapes, layers)
    # wi_0 and wi_1 where they are gated.
    gated = any(name.endswith("/wi_0/kernel") for name in shapes)
    inner = "mlp/expert" if 0 in sparse else "mlp"
    d_ff = _shape(shapes, f"encoder/layers_0/{inner}/wo/kernel", 3 if 0 in sparse else 2)[-2]
    fields = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_ff": d_ff,
        "d_kv": joined // num_heads,
        "num_heads": num_heads,
        "num_layers": layers,
        "activation": "geglu" if gated else "relu",
        "tied_embeddings": "decoder/logits_dense/kernel" not in shapes,
        "relative_buckets": buckets,
        "switch": bool(sparse),
    }
    found = {f"ModelConfig.{name}": value for name, value in fields.items()}
    if sparse:
        router = f"encoder/layers_{sparse[0]}/mlp/router/router_weights/w/kernel"
        found["SwitchConfig.num_experts"] = _shape(shapes, router, 2)[1]
        found["SwitchConfig.every"] = _period(sparse, layers)
    return found


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


def _num_layers(shapes: Shapes) -> int:
    counts = {}
    for stack in ("encoder", "decoder"):
        names = (f"{stack}/layers_{n}/pre_mlp_layer_norm/scale" for n in itertools.count())
        counts[stack] = sum(1 for _ in itertools.takewhile(shapes.__contains__, names))
    if counts["encoder"] != counts["decoder"]:
        raise UserError(
            f"The T5X checkpoint has {counts['encoder']} encoder and {counts['decoder']} decoder "
            "layers; switchx's models have as many in both stacks."
        )
    return counts["encoder"]


def _sparse_layers(shapes: Shapes, layers: int) -> list[int]:
    encoder, decoder = (
        [n for n in range(layers) if f"{stack}/layers_{n}/mlp/expert/wo/kernel" in shapes]
        for stack in ("encoder", "decoder")
    )
    if encoder != decoder:
        raise UserError(
            f"The T5X checkpoint has experts in encoder layers {encoder} and decoder layers "
            f"{decoder}; in switchx's models they are in the same ones."
        )
    return encoder


def _period(sparse: list[int], layers: int) -> int:
    period = sparse[0] + 1
    if sparse != list(range(period - 1, layers, period)) or layers % period:
        raise UserError(
            f"The T5X checkpoint has experts in layers {sparse} of {layers}; in switchx's models "
            "every n-th layer has them, the last layer included."
        )
    return period
