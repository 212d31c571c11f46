"""Masked language modelling against t5's own functions and seqio's own feature converter."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from switchx.data import check_objective, eval_batches, preflight, train_stream, vocabulary
from switchx.data.tasks import masking
from switchx.data.tasks.lookup import find_provider
from switchx.errors import UserError

from ..conftest import docs_config

LENGTHS = {"inputs": 64, "targets": 64}


def masked_config(**changes):
    values = {"mixture_or_task_name": "python_docs_masked_lm", "feature_lengths": LENGTHS}
    return docs_config(**{**values, "encoder_alone": True, **changes})


def test_masks_are_drawn_as_t5_draws_them():
    t5 = pytest.importorskip("t5.data.preprocessors")
    feature = seqio.Feature(seqio.ByteVocabulary(100))
    features = {"inputs": feature, "targets": feature}
    documents = np.random.default_rng(0).integers(3, 259, (5, 63)).astype(np.int32)
    rows = tf.data.Dataset.from_tensor_slices({"targets": documents.reshape(1, -1)})
    with seqio.utils.map_seed_manager(3):
        ours = list(masking.mask_tokens(rows, LENGTHS, features).as_numpy_iterator())
    whole = tf.data.Dataset.from_tensor_slices({"inputs": documents, "targets": documents})
    # Two steps of ours take two seeds each before the masks are drawn.
    with seqio.utils.map_seed_manager(3 + 2 * 2):
        theirs = t5.denoise(
            whole,
            features,
            noise_density=0.15,
            noise_mask_fn=t5.iid_noise_mask,
            inputs_fn=t5.noise_token_to_sentinel,
        )
        theirs = list(theirs.as_numpy_iterator())
    assert len(ours) == len(theirs) == 5
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one["inputs"], other["inputs"])
        np.testing.assert_array_equal(one["targets"], other["targets"])
        assert (one["inputs"] == 358).any()


@pytest.mark.parametrize("pack", [False, True])
def test_batches_are_those_of_seqios_converter(pack):
    config = masked_config(pack=pack)
    words, provider = vocabulary(config), find_provider(config)
    examples = provider.get_dataset(LENGTHS, split="validation", shuffle=False, seed=0)
    features = examples.map(lambda example: {name: example[name] for name in LENGTHS})
    converter = seqio.EncoderFeatureConverter(mask_id=words.sentinel_id(0), pack=pack)
    rows = converter(features, task_feature_lengths=LENGTHS).batch(4).take(3)
    for batch, expected in zip(eval_batches(config), rows.as_numpy_iterator(), strict=True):
        expected.pop("encoder_positions", None)
        assert batch.keys() == expected.keys()
        for name, array in batch.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
    weight_BL = batch["encoder_loss_weights"]
    assert weight_BL.dtype == np.float32
    assert weight_BL.mean() == pytest.approx(0.15, abs=0.06)


def test_a_stream_goes_on_where_it_was():
    config = masked_config()
    stream = train_stream(config)
    next(stream)
    saved, expected = stream.state(), next(stream)
    again = train_stream(config)
    again.restore(saved)
    found = next(again)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    stream.close()
    again.close()


def test_tasks_and_lengths_that_are_not_for_an_encoder_alone():
    with pytest.raises(UserError, match="gives two lengths, and an encoder alone"):
        check_objective(masked_config(feature_lengths={"inputs": 64, "targets": 32}))
    with pytest.raises(UserError, match="'python_docs_span_corruption' writes targets of their"):
        check_objective(masked_config(mixture_or_task_name="python_docs_span_corruption"))
    own = {"mixture_or_task_name": "own_shouting", "task_module": "tests.data.own_tasks"}
    shouted = masked_config(**own)  # in capitals, of which some have more bytes: none here
    preflight(shouted)
    with pytest.raises(UserError, match="'python_docs_prepositions' writes targets of their own"):
        preflight(masked_config(mixture_or_task_name="python_docs_prepositions"))
