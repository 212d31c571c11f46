"""What a checkpoint is of, in a small JSON file of its own that vouches for the other files."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx.errors import UserError
from switchx.model import ModelConfig

# The fields that decide which parameters a model has.
_SHAPE_FIELDS = (
    "vocab_size",
    "d_model",
    "d_ff",
    "d_kv",
    "num_heads",
    "num_layers",
    "activation",
    "tied_embeddings",
    "relative_buckets",
)
_SEAL = "seal"


def identity(
    config: ModelConfig, optimizer: str | None = None, vocabulary: str | None = None
) -> dict[str, Any]:
    """What a checkpoint must match: settings as the user names them, and the vocabulary's hash."""
    model: dict[str, Any] = {f"ModelConfig.{name}": getattr(config, name) for name in _SHAPE_FIELDS}
    if config.switch:
        model["NUM_EXPERTS"] = config.switch.num_experts
        model["SwitchConfig.every"] = config.switch.every
    return {"model": model, "optimizer": optimizer, "vocabulary": vocabulary}


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a hash of itself: no other checkpoint has the same."""
    return {**content, _SEAL: _hash(content)}


def unsealed(found: Any) -> tuple[dict[str, Any], str]:
    """The content that was sealed, and its seal.

    Raises:
      ValueError: it is not what was sealed.
    """
    if not isinstance(found, dict) or _SEAL not in found:
        raise ValueError("identity has no seal")
    content = {name: value for name, value in found.items() if name != _SEAL}
    if found[_SEAL] != _hash(content):
        raise ValueError("identity is not what was saved")
    return content, found[_SEAL]


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def compare(model_dir: str | Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UserError, naming the first setting in which two identities differ."""
    for name in sorted({*saved["model"], *wanted["model"]}):
        there, here = saved["model"].get(name), wanted["model"].get(name)
        if there != here:
            raise UserError(
                f"MODEL_DIR={str(model_dir)!r} holds a checkpoint of another model: {name} is "
                f"{there!r} there and {here!r} here; choose another MODEL_DIR or that setting."
            )
    if wanted["optimizer"] and saved["optimizer"] != wanted["optimizer"]:
        raise UserError(
            f"OPTIMIZER={wanted['optimizer']!r}, but the checkpoint in MODEL_DIR="
            f"{str(model_dir)!r} was trained with {saved['optimizer']!r}."
        )
    if wanted["vocabulary"] and saved["vocabulary"] not in (None, wanted["vocabulary"]):
        raise UserError(
            f"The vocabulary does not match the checkpoint in MODEL_DIR={str(model_dir)!r}: set "
            "VOCABULARY to the one it was trained with, or choose another MODEL_DIR."
        )


def compare_arrays(
    model_dir: str | Path, saved: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """The same of the arrays' types and shapes, which other settings decide too."""
    there = {name: value.split()[0] for name, value in saved.items()}
    parts = tuple({f"{name.split('/')[0]}/" for name in wanted})  # parameters alone, or all
    for name in sorted({n for n in there if n.startswith(parts)} | wanted.keys()):
        if there.get(name) != wanted.get(name):
            raise UserError(
                f"MODEL_DIR={str(model_dir)!r} holds a checkpoint of another model or optimizer: "
                f"{name} is {there.get(name, 'missing')} there and {wanted.get(name, 'missing')} "
                "here; choose another MODEL_DIR or the settings it was trained with."
            )
