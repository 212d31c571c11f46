"""How the tokens of a run were shared out among its experts, as its metrics tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from switchx.model import ModelConfig
from switchx.training.metrics import layer_names
from switchx.training.run_reader import metric_rows

_FEED_FORWARD = " feed-forward"  # its experts' name ends so where attention has some too


def recorded_load(model_dir: str | Path, config: ModelConfig, step: int) -> dict[str, np.ndarray]:
    """Of each layer whose feed-forward has experts, as "encoder 3": their shares, float32 [E].

    Of the newest row up to a step, an evaluation's before a training batch's. {} where the run
    has none, as an import that was not trained.
    """
    rows = [
        row
        for row in metric_rows(model_dir)
        if row["step"] <= step and row["split"] in ("train", "validation") and "load" in row
    ]
    if not rows:
        return {}
    newest = max(rows, key=lambda row: (row["step"], row["split"] == "validation"))
    return by_layer(dict(zip(layer_names(config), newest["load"], strict=True)))


def by_layer(shares: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Of shares by the names of `layer_names` those of feed-forwards, by "encoder 3" alone."""
    return {
        name.removesuffix(_FEED_FORWARD): np.asarray(load_E, np.float32)
        for name, load_E in shares.items()
        if not name.endswith(" attention")
    }
