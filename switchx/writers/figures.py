"""The figures of a row under the names that every writer shows them by."""

import math
from collections.abc import Sequence
from typing import Any

from switchx.writers.writer import Row

_NO_FIGURES = ("step", "split", "time")


def scalars(row: Row, layer_names: Sequence[str]) -> dict[str, float]:
    """Numbers by name: the row's own, and "switch/<layer>/<name>" for each layer of experts.

    Of figures that each expert has there is the layer's least and most, as multiples of an even
    share. What was not finite is NaN.
    """
    found: dict[str, float] = {}
    for name, value in row.items():
        if name in _NO_FIGURES:
            continue
        if not isinstance(value, list):
            found[name] = _number(value)
            continue
        for layer, of_layer in enumerate(value):
            prefix = f"switch/{_tag(layer, layer_names)}"
            if isinstance(of_layer, list):
                shares = [_number(share) * len(of_layer) for share in of_layer]
                found[f"{prefix}/max_{name}"] = max(shares)
                found[f"{prefix}/min_{name}"] = min(shares)
            else:
                found[f"{prefix}/{name}"] = _number(of_layer)
    return found


def of_split(row: Row, layer_names: Sequence[str]) -> dict[str, float]:
    """`scalars`, each behind its split, for trackers that know no splits."""
    return {f"{row['split']}/{name}": value for name, value in scalars(row, layer_names).items()}


def loads(row: Row, layer_names: Sequence[str]) -> dict[str, list[float]]:
    """The load of every expert as a multiple of an even share, by "switch/<layer>/load".

    Layers of which not all is finite are left out.
    """
    found = {}
    for layer, shares in enumerate(row.get("load", [])):
        even = [_number(share) * len(shares) for share in shares]
        if all(map(math.isfinite, even)):
            found[f"switch/{_tag(layer, layer_names)}/load"] = even
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _tag(layer: int, names: Sequence[str]) -> str:
    return names[layer].replace(" ", "_") if layer < len(names) else f"layer_{layer}"
