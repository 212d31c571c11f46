"""Values of T5X's settings in our words, for the rows of `table`."""

from typing import Any

from switchx.settings.t5x.rows import DiffersError

_DTYPES = {"bfloat16": "bfloat16", "float32": "float32"}
# As Flax has them: its gelu is the approximation by a tanh.
_ACTIVATIONS = {
    ("relu",): "relu",
    ("gelu",): "gelu_tanh",
    ("silu",): "silu",
    ("swish",): "silu",
    ("relu", "linear"): "reglu",
    ("gelu", "linear"): "geglu",
    ("silu", "linear"): "swiglu",
    ("swish", "linear"): "swiglu",
}


def dtype(value: Any) -> str:
    if value not in _DTYPES:
        raise DiffersError("computation is in 'bfloat16' or 'float32'")
    return _DTYPES[value]


def activation(value: Any) -> str:
    found = _ACTIVATIONS.get(tuple(value) if isinstance(value, list | tuple) else value)
    if found is None:
        known = ", ".join(map(repr, _ACTIVATIONS))
        raise DiffersError(f"feed-forwards are one of {known}")
    return found


def microbatches(value: Any) -> Any:
    return value or 1


def mixture(value: Any) -> Any:
    if not isinstance(value, str):
        raise DiffersError("a task is the name of one that is registered")
    return value


def pieces(value: Any) -> Any:
    """The vocabulary by its file: T5's and mT5's have names."""
    from switchx.data.tasks.names import PUBLIC_MODELS

    names = {path: name for name, path in PUBLIC_MODELS.items()}
    return names.get(value, value)


def tied(value: Any) -> bool:
    return value is None


def zero(value: Any) -> Any:
    return 0.0 if value is None else value
