"""A few blanks of the validation split, as a trained model fills them, beside the truth."""

import dataclasses
import re

import jax
import numpy as np

from switchx import data, inference
from switchx.inference.blanks import spans
from switchx.model import Model
from switchx.sharding import batch_shards, make_mesh
from switchx.training.checkpoints import restore_params
from switchx.training.config import RunConfig

_SENTINEL = re.compile(r"\s*<extra_id_(\d+)>\s*")
_AROUND = 36  # characters of text shown on each side of a blank


@dataclasses.dataclass(frozen=True)
class Blank:
    """One blank: the text around it, what the model put there, what stood there."""

    before: str
    given: str
    truth: str
    after: str


def fill(
    run: RunConfig, data_config: data.DataConfig, model_dir: str, rows: int, per_row: int
) -> list[Blank]:
    """The first blanks of each of the first validation rows, filled greedily."""
    vocabulary = data.vocabulary(data_config)
    mesh, model = make_mesh(run.mesh), Model.of(run.model)
    alone = dataclasses.replace(data_config, pack=False)  # an example in a row
    batch = next(iter(data.eval_batches(alone)))
    shards = batch_shards(mesh)
    decoding = inference.DecodingConfig(
        length=data_config.feature_lengths["targets"], batch_size=-(-rows // shards) * shards
    )
    inputs = [[token for token in row if token] for row in batch["encoder_input_tokens"].tolist()]
    inputs = [row for row in inputs if row][:rows]
    with jax.set_mesh(mesh):
        params, _ = restore_params(model, model_dir, mesh)
        limit = data_config.feature_lengths["inputs"]
        answers = list(inference.predict(model, params, inputs, decoding, limit))
    blanks: list[Blank] = []
    for row, target, answer in zip(inputs, batch["decoder_target_tokens"], answers, strict=False):
        blanks += _blanks(vocabulary, row, answer, target)[:per_row]
    return blanks


def _blanks(
    vocabulary: data.Vocabulary, row: list[int], answer: list[int], target_L: np.ndarray
) -> list[Blank]:
    text = vocabulary.decode(row)
    given, truth = (spans(vocabulary.decode(tokens)) for tokens in (answer, target_L.tolist()))
    blanks = []
    for match in _SENTINEL.finditer(text):
        number = int(match[1])
        before = _plain(text[: match.start()])[-_AROUND:]
        after = _plain(text[match.end() :])[:_AROUND]
        blanks.append(Blank(before, given.get(number, ""), truth.get(number, ""), after))
    return blanks


def _plain(text: str) -> str:
    """One line, other blanks as dots."""
    return " ".join(_SENTINEL.sub(" … ", text).split())
