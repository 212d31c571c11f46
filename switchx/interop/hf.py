"""Models of transformers' `switch_transformers` and `t5`: a folder of safetensors and config.json.

Logits agree to float32 rounding wherever no token is dropped. Where transformers (its code at
5.23.0) computes something else than the paper and switchx do:

- Capacity is `expert_capacity` slots per expert and row (64 in the published configs), in
  training and evaluation, whatever the number of tokens or experts; padding is routed too and
  takes slots. Exported configs get the length of the longest row, which drops nothing.
  Releases of 5 before the fix of its issue 48293 drop no token at all.
- The jitter of a float32 model also reaches the experts' inputs, since it is applied in place.
- Balance and z losses: the routers of all layers are joined before the loss is taken, so that
  layers which collapse onto different experts look balanced; padding counts; both are 0 where
  every layer is sparse; and they enter the loss only with output_router_logits=True. Their
  weights default to 1e-3.
- With tie_word_embeddings=False a Switch model's stacks each have an embedding of their own.
  switchx has one: it is exported under all three names, and others are refused.
- Router probabilities are rounded to the model's dtype before the expert is chosen, so ties
  occur in bfloat16.
- There is one dropout rate: no expert dropout.
- A new model's router is N(0, 1) and its experts N(0, 1 / d_model): nothing is scaled by 0.1.
- There are no gated experts, so Switch-XXL cannot be represented; nor top-k routing, other
  policies, or experts elsewhere than in layers 1, 1 + n, 1 + 2n and so on, all or none.
- T5EncoderModel and SwitchTransformersEncoderModel have no logits: a folder without a decoder's
  tensors is an encoder alone, and its logits are tied where it has no `lm_head.weight`, which
  switchx adds to an export whose logits are not.
- T5's tie_word_embeddings=False means "not scaled" since 5.0; whether the logits have a matrix
  of their own is seen from the tensors.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from switchx import storage
from switchx.errors import UserError
from switchx.interop import hf_config
from switchx.interop.hf_names import STACK_TABLES, Piece, leaf, pieces
from switchx.interop.safetensors import Tensor, read_header
from switchx.interop.source import Index, build, check_finite
from switchx.model import ModelConfig, Params

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"

_TABLE, _LOGITS = "shared.weight", "lm_head.weight"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # none that leaves the folder
# In old T5 folders; transformers ignores it too.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def open_source(path: str) -> "HFSource":
    """Reads config.json and the headers of a folder.

    Raises:
      UserError: a file is missing or damaged, the model is of another kind, or its tensors are
        not those that config.json asks for.
    """
    folder = storage.as_path(path, "--input")
    if not storage.is_remote(folder) and not folder.is_dir():
        raise UserError(f"--input={path} is not a folder.")
    config = read_json(folder / CONFIG)
    tensors = read_tensors(folder)
    tensors.pop(_UNUSED, None)
    _name_table(tensors, tied=config.get("tie_word_embeddings", True) is not False)
    own_logits = _LOGITS in tensors and not _same(tensors, _LOGITS)
    encoder_alone = not any(name.startswith("decoder.") for name in tensors)
    model = hf_config.read_config(config, str(folder / CONFIG), own_logits, encoder_alone)
    if not model.tied_embeddings and model.switch is None and _TABLE in tensors:
        tensors.setdefault(_LOGITS, tensors[_TABLE])
    for name in STACK_TABLES:
        if name in tensors and not _same(tensors, name):
            raise UserError(f"{folder}: {name} differs from {_TABLE}; switchx has one embedding.")
        tensors.pop(name, None)
    if model.tied_embeddings:
        tensors.pop(_LOGITS, None)
    _check_names(model, tensors, folder)
    return HFSource(model, tensors)


class HFSource:
    """A folder of transformers (`switchx.interop.Source`).

    Attributes:
      config: the model, with defaults for what config.json does not decide.
    """

    step = None

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor]):
        self.model_fields = hf_config.model_fields(config)
        self.config, self._tensors = config, tensors

    def params(self, abstract: Params) -> Params:
        """The parameters, float32; see `switchx.interop.Source`."""
        by_path: dict[tuple[str, ...], dict[tuple[int, ...], Piece]] = {}
        for piece in pieces(self.config):
            self._check_shape(piece, abstract)
            by_path.setdefault(piece.path, {})[piece.place] = piece
        for found, _ in jax.tree_util.tree_leaves_with_path(abstract):
            path = tuple(key.key for key in found)
            if path not in by_path:
                raise UserError(
                    f"The configuration asks for a parameter {'/'.join(path)}, which models of "
                    "transformers do not have: leave out the setting that adds it."
                )
        params: Params = {}
        for path, own in by_path.items():
            inner = params
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = self._parameter(leaf(abstract, path), own)
        return params

    def opt_state(self, abstract: Any) -> None:
        """transformers' folders hold none."""

    def _parameter(
        self, target: jax.ShapeDtypeStruct, own: Mapping[tuple[int, ...], Piece]
    ) -> jax.Array:
        def read(place: tuple[int, ...], index: Index) -> np.ndarray:
            piece = own[place]
            tensor = self._tensors[piece.name]
            part = tensor.read(index[::-1]).T if piece.transposed else tensor.read(index)
            return check_finite(part, f"{tensor.file}: {piece.name}")

        return build(target, len(next(iter(own))), read)

    def _check_shape(self, piece: Piece, abstract: Params) -> None:
        tensor, shape = self._tensors[piece.name], piece.shape(abstract)
        if tensor.shape != shape:
            raise UserError(
                f"{tensor.file}: {piece.name} has the shape {list(tensor.shape)}; "
                f"{CONFIG} asks for {list(shape)}."
            )


def _name_table(tensors: dict[str, Tensor], tied: bool) -> None:
    """Gives the embedding its own name where it is saved under one of its copies' names alone."""
    for name in (*STACK_TABLES, *([_LOGITS] if tied else [])):
        if _TABLE not in tensors and name in tensors:
            tensors[_TABLE] = tensors[name]


def _same(tensors: Mapping[str, Tensor], name: str) -> bool:
    """Whether a tensor is a copy of the embedding."""
    if _TABLE not in tensors or tensors[name].shape != tensors[_TABLE].shape:
        return False
    return np.array_equal(tensors[name].read(), tensors[_TABLE].read())


def _check_names(config: ModelConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    left = set(tensors)
    for piece in pieces(config):  # may be endless, if config.json is: stops at the first
        if piece.name not in left:
            raise UserError(f"{folder} has no tensor {piece.name}, which {CONFIG} asks for.")
        left.remove(piece.name)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise UserError(
            f"{folder} has a tensor {min(left)[:200]!r}{more}, which {CONFIG} does not ask for."
        )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's files, by name."""
    if storage.is_file(folder / WEIGHTS, "--input"):
        return read_header(folder / WEIGHTS)
    if not storage.is_file(folder / WEIGHTS_INDEX, "--input"):
        raise UserError(
            f"{folder} holds neither {WEIGHTS} nor {WEIGHTS_INDEX}; other formats may run code "
            "when read, so save the model with transformers' save_pretrained first."
        )
    named = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise UserError(f"{folder / WEIGHTS_INDEX} has no weight_map from tensors to files.")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(named.values())):
        if not _FILE_NAME.fullmatch(name):
            raise UserError(f"{folder / WEIGHTS_INDEX}: {name[:200]!r} is not a name of a file.")
        found = read_header(folder / name)
        wrong = [tensor for tensor in found if named.get(tensor) != name]
        if wrong:
            raise UserError(
                f"{folder / name} has {wrong[0][:200]!r}, not named in {WEIGHTS_INDEX}."
            )
        tensors |= found
    for name in named:
        # Released indexes name copies of the embedding that no file has (flan-t5-xl's do).
        if name not in tensors and name not in STACK_TABLES:
            raise UserError(
                f"{folder / named[name]} has no {name[:200]!r}, as {WEIGHTS_INDEX} says."
            )
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content = storage.read_if_there(path, "--input")
    if content is None:
        raise UserError(
            f"--input leads to {str(path)!r}, which is not there: name a folder that transformers' "
            "save_pretrained wrote."
        )
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error)[:200]}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object.")
    return value
