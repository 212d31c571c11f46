"""What the pipeline makes of text, against the text tokenised here."""

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from switchx.data import eval_batches, train_stream, vocabulary
from switchx.data.checks import check_objective
from switchx.data.tasks import corpus, recipes
from switchx.data.tasks.objectives import span_lengths
from switchx.errors import UserError

from ..conftest import docs_config


@functools.cache
def full_length_rows():
    """All evaluation rows of the embedded task at 512/114, without the padding rows."""
    config = docs_config(
        feature_lengths={"inputs": 512, "targets": 114}, batch_size=16, eval_batches=40
    )
    batches = list(eval_batches(config))
    rows = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    real = rows["encoder_input_tokens"].any(axis=1)
    return {name: x_BL[real] for name, x_BL in rows.items()}, vocabulary(config)


def spans_of(tokens, first_sentinel, sentinels=100):
    """Splits ids at sentinels: {number of a sentinel: ids after it}, None: before the first."""
    spans, current = {None: []}, None
    for token in tokens:
        if first_sentinel - sentinels < token <= first_sentinel:
            current = int(first_sentinel - token)
            assert current not in spans, "each sentinel once"
            spans[current] = []
        else:
            spans[current].append(int(token))
    return spans


def fill(inputs, targets, words):
    """The original ids of a row: every sentinel of the inputs replaced by its span."""
    assert inputs[-1] == targets[-1] == words.eos_id
    kept = spans_of(inputs[:-1], words.sentinel_id(0))
    gone = spans_of(targets[:-1], words.sentinel_id(0))
    assert gone[None] == []  # targets begin with the first sentinel
    filled = list(kept[None])
    for number in sorted(gone.keys() - {None}):
        filled += gone[number] + kept.get(number, [])
    assert set(kept) <= set(gone)
    return filled, [span for number, span in gone.items() if number is not None]


def trimmed(x_L):
    return x_L[: int(np.flatnonzero(x_L)[-1]) + 1]


def test_filling_the_blanks_gives_the_text(docs_corpus):
    rows, words = full_length_rows()
    (path,) = docs_corpus.folder.glob("validation-*")
    documents = path.read_text(encoding="utf-8").splitlines()
    assert len(documents) <= 128  # t5 concatenates 128 documents at a time
    expected = " ".join(words.decode(words.encode(document)) for document in documents)
    pairs = zip(rows["encoder_input_tokens"], rows["decoder_target_tokens"], strict=True)
    found = [fill(trimmed(inputs), trimmed(targets), words)[0] for inputs, targets in pairs]
    assert {len(row) for row in found[:-1]} == {568}
    # As text: equally likely pieces of ']]]' are cut in another order inside TensorFlow.
    assert words.decode([token for row in found for token in row]) == expected


def test_rows_are_full():
    rows, words = full_length_rows()
    inputs_BL, targets_BL = rows["encoder_input_tokens"], rows["decoder_target_tokens"]
    full = (inputs_BL != 0).all(axis=1) & (targets_BL != 0).all(axis=1)
    assert full[:-1].all()  # the last one is what the text leaves over
    assert (inputs_BL[:-1, -1] == words.eos_id).all()
    assert (targets_BL[:-1, -1] == words.eos_id).all()


def test_rate_and_span_length():
    rows, words = full_length_rows()
    pairs = zip(rows["encoder_input_tokens"][:-1], rows["decoder_target_tokens"], strict=False)
    lengths = [
        len(span)
        for inputs, targets in pairs
        for span in fill(trimmed(inputs), trimmed(targets), words)[1]
    ]
    noise, number = sum(lengths), len(lengths)
    assert noise / (568 * (len(rows["encoder_input_tokens"]) - 1)) == pytest.approx(0.15, abs=0.001)
    # 85 tokens in 28 spans a row, split at random: 3.04 on average, geometric with few of length 1.
    assert noise / number == pytest.approx(85 / 28)
    share_of_ones = lengths.count(1) / number
    assert share_of_ones == pytest.approx(27 / 84, abs=4 * (0.32 * 0.68 / number) ** 0.5)


def test_decoder_inputs_are_targets_shifted():
    rows, _ = full_length_rows()
    targets_BL, inputs_BL = rows["decoder_target_tokens"], rows["decoder_input_tokens"]
    assert (inputs_BL[:, 0] == 0).all()
    assert (inputs_BL[:, 1:] == targets_BL[:, :-1]).all()
    assert (rows["decoder_loss_weights"] == (targets_BL != 0)).all()


def test_shapes_and_types():
    batch = next(train_stream(docs_config()))
    assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
        "encoder_input_tokens": ((4, 64), "int32"),
        "decoder_target_tokens": ((4, 18), "int32"),
        "decoder_input_tokens": ((4, 18), "int32"),
        "decoder_loss_weights": ((4, 18), "float32"),
    }


@pytest.mark.parametrize("inputs", [16, 37, 64, 100, 256])
def test_shorter_rows_are_full_as_well(inputs):
    _, spans, targets = span_lengths(inputs)
    lengths = {"inputs": inputs, "targets": targets}
    batch = next(iter(eval_batches(docs_config(feature_lengths=lengths, batch_size=32))))
    assert (batch["encoder_input_tokens"] != 0).all()
    assert (batch["decoder_target_tokens"] != 0).all()
    sentinels = batch["encoder_input_tokens"] >= recipes.DOCS.pieces
    assert (sentinels.sum(axis=1) == spans).all()


def test_a_prefix_language_model_gives_the_first_tokens_and_asks_for_the_rest(
    docs_corpus, tmp_path
):
    folder = corpus.locate(tmp_path, recipe=recipes.CODE_1000).folder
    shutil.copytree(docs_corpus.folder, folder)  # in the place of 90 MB of code
    config = docs_config(
        mixture_or_task_name="python_code_prefix_lm",
        feature_lengths={"inputs": 16, "targets": 112},
        cache_dir=str(tmp_path),
        batch_size=32,
    )
    batch, words = next(iter(eval_batches(config))), vocabulary(config)
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    (path,) = folder.glob("validation-*")
    document = words.encode(path.read_text(encoding="utf-8").splitlines()[0])
    assert list(inputs[0, :14]) + list(targets[0, 1:111]) == document[:124]
    assert (inputs[:, 14] == words.sentinel_id(0)).all()
    assert (targets[:, 0] == words.sentinel_id(0)).all()
    assert (inputs[:, 15] == words.eos_id).all()
    assert (targets[:, 111] == words.eos_id).all()
    with pytest.raises(UserError, match="give at least 112 targets"):
        check_objective(dataclasses.replace(config, feature_lengths={"inputs": 16, "targets": 64}))


def test_paper_lengths():
    assert span_lengths(512) == (568, 28, 114)


@pytest.mark.parametrize("settings", [{}, {"noise_density": 0.5, "mean_noise_span_length": 2.0}])
def test_rows_are_those_of_t5(settings):
    """From the same seed the same rows: documents empty, short, and longer than one chunk."""
    import seqio
    import tensorflow as tf
    from t5.data import preprocessors

    from switchx.data.tasks.span_corruption import span_corruption

    rng = np.random.default_rng(0)
    sizes = [0, 1, 2, 5, 70_000, *rng.integers(0, 900, 150)]
    documents = [rng.integers(3, 900, size).astype(np.int32) for size in sizes]

    def rows(corruption):
        dataset = tf.data.Dataset.from_generator(
            lambda: ({"targets": document} for document in documents),
            output_signature={"targets": tf.TensorSpec([None], tf.int32)},
        )
        feature = seqio.Feature(seqio.PassThroughVocabulary(1000))
        features = {"inputs": feature, "targets": feature}
        lengths = {"inputs": 128, "targets": 128}
        with seqio.utils.map_seed_manager(7):
            made = corruption(dataset, lengths, features, **settings)
        return [
            (row["inputs"].tolist(), row["targets"].tolist()) for row in made.as_numpy_iterator()
        ]

    ours, theirs = rows(span_corruption), rows(preprocessors.span_corruption)
    assert len(ours) > 300
    assert ours == theirs


@pytest.mark.parametrize(
    ("density", "mean_span"), [(0.15, 3.0), (0.5, 3.0), (0.5, 32.0), (0.3, 1.0)]
)
def test_lengths_are_those_of_t5(density, mean_span):
    from t5.data import preprocessors

    for inputs in (8, 33, 64, 512, 1000):
        tokens, _, targets = span_lengths(inputs, density, mean_span)
        assert (tokens, targets) == preprocessors.random_spans_helper(
            inputs, density, mean_span, 1, 1
        )
