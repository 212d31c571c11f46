"""Models of transformers' T5 family: a folder of safetensors and config.json.

T5 1.0 and 1.1, flan, ByT5, UL2, mT5, UMT5 and Switch Transformers. Logits agree to float32 rounding
wherever no token is dropped. Where transformers (its code at 5.23.0) computes something else than
the paper and switchx do:

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
- tie_word_embeddings=False means "not scaled" since 5.0 (`hf_families.scales_logits`); whether the
  logits have a matrix of their own is seen from the tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from switchx import storage
from switchx.errors import UserError
from switchx.interop import hf_config
from switchx.interop.hf_files import CONFIG, read_json, read_tensors
from switchx.interop.hf_names import LOGITS, STACK_TABLES, TABLE, Piece, leaf, pieces
from switchx.interop.hf_rows import Exchanged
from switchx.interop.hf_tokenizer import read_vocabulary
from switchx.interop.safetensors import Tensor
from switchx.interop.source import Index, SpecialIds, build, check_finite, with_biases
from switchx.model import ModelConfig, Params

# In old T5 folders; transformers ignores it too.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
_WITHIN = "transformer."  # what T5ForSequenceClassification puts before the model's names
# Of T5ForSequenceClassification, ...TokenClassification and ...QuestionAnswering.
_HEADS = ("classification_head.", "classifier.", "qa_outputs.")


def open_source(path: str) -> "HFSource":
    """Reads config.json and the headers of a folder.

    Raises:
      UserError: a file is missing or damaged, the model is of another kind, or its tensors are
        not those that config.json asks for.
    """
    folder = storage.as_path(path, "--input")
    if not storage.is_remote(folder) and not folder.is_dir():
        raise UserError(
            f"--input={path} is not a folder: name one that transformers' save_pretrained wrote, "
            "or a download of one from the hub, from which nothing is fetched here."
        )
    config = read_json(folder / CONFIG)
    tensors = read_tensors(folder)
    tensors.pop(_UNUSED, None)
    tensors = {name.removeprefix(_WITHIN): tensor for name, tensor in tensors.items()}
    heads = sorted(name for name in tensors if name.startswith(_HEADS))
    for name in heads:
        del tensors[name]
    own_logits = _one_table(tensors, folder)
    encoder_alone = not any(name.startswith("decoder.") for name in tensors)
    model = hf_config.read_config(config, str(folder / CONFIG), own_logits, encoder_alone)
    _check_names(model, tensors, folder)
    notes = []
    if heads:
        notes.append(f"left out, since switchx has no such head: {', '.join(heads)}")
    special = hf_config.read_ids(config, str(folder / CONFIG))
    return HFSource(model, tensors, notes, special, read_vocabulary(folder))


class HFSource:
    """A folder of transformers (`switchx.interop.Source`).

    Attributes:
      config: the model, with defaults for what config.json does not decide.
    """

    step = None

    def __init__(
        self,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        notes: list[str],
        special: SpecialIds,
        vocabulary: bytes | None,
    ):
        self.model_fields, self.notes = hf_config.model_fields(config), notes
        self.special: SpecialIds | None = special
        self.vocabulary = vocabulary
        self.config = config
        self._tensors: dict[str, Tensor | Exchanged] = dict(tensors)
        if special.pad:
            for name in {TABLE, LOGITS} & set(tensors):
                self._tensors[name] = Exchanged(tensors[name], special.pad)

    def params(self, abstract: Params) -> Params:
        """The parameters, float32; see `switchx.interop.Source`."""
        return with_biases(abstract, self._params)

    def _params(self, abstract: Params) -> Params:
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


def _one_table(tensors: dict[str, Tensor], folder: Path) -> bool:
    """Leaves the embedding under its own name alone, whichever of its names it has in the files.

    Returns:
      Whether the logits have a matrix of their own.
    """
    there = [name for name in (TABLE, *STACK_TABLES, LOGITS) if name in tensors]
    if not there:
        return False  # `_check_names` says so
    first, *others = there
    table = tensors[TABLE] = tensors[first]
    own_logits = LOGITS in others and not _same(tensors[LOGITS], table)
    for name in others:
        if name in STACK_TABLES and not _same(tensors[name], table):
            raise UserError(f"{folder}: {name} differs from {first}; switchx has one embedding.")
    for name in STACK_TABLES if own_logits else (*STACK_TABLES, LOGITS):
        tensors.pop(name, None)
    return own_logits


def _same(tensor: Tensor, table: Tensor) -> bool:
    """Whether a tensor is a copy of the embedding."""
    return tensor.shape == table.shape and np.array_equal(tensor.read(), table.read())


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
