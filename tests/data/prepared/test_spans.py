"""Span corruption in NumPy, against t5's own: counts, sentinels, and how likely each mask is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchx.data.prepared.counter_random import key_of
from switchx.data.prepared.spans import SpanCorruption

T5 = SpanCorruption(0.15, 3.0, 31_999)


def rows(count, length, seed=0):
    return np.random.default_rng(seed).integers(3, 31_000, (count, length)).astype(np.int32)


def filled_in(inputs, targets, corruption):
    """The row that was corrupted, put together token by token."""
    spans, current = {}, None
    for token in targets:
        if token == corruption.first_sentinel - len(spans):
            current = spans[token] = []
        else:
            current.append(token)
    return [t for token in inputs for t in spans.get(token, [token])]


@settings(deadline=None, derandomize=True)
@given(length=st.integers(1, 700), density=st.floats(0.05, 0.6), mean=st.floats(1, 6))
def test_nothing_is_lost(length, density, mean):
    corruption = SpanCorruption(density, mean, 31_999)
    # Where spans would not fit between what is kept, t5 fails too: its tasks never ask for it.
    noise, spans = corruption.counts(max(length, 2))
    if spans > min(noise, max(length, 2) - noise):
        return
    token_RN = rows(3, length)
    inputs_RI, targets_RT = corruption.corrupt(token_RN, key_of(5, np.arange(3)))
    for tokens, inputs, targets in zip(token_RN, inputs_RI, targets_RT, strict=True):
        if length > 1:  # a single token stays where it is, and the targets are a lone sentinel
            assert filled_in(inputs.tolist(), targets.tolist(), corruption) == tokens.tolist()


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 10, 20, 33, 100, 567, 568])
def test_masks_have_the_counts_of_t5(length):
    import tensorflow as tf
    from t5.data import preprocessors

    theirs = preprocessors.random_spans_noise_mask(
        tf.constant(length), 0.15, tf.constant([[1, 2], [3, 4]]), 3.0
    ).numpy()
    ours = T5.noise_mask(key_of(1, np.arange(50)), length)
    assert set(ours.sum(axis=1)) == {theirs.sum()}
    starts = lambda mask: int((np.diff(np.pad(mask, (1, 0)).astype(int)) == 1).sum())  # noqa: E731
    assert {starts(mask) for mask in ours} == {starts(theirs)}


@pytest.mark.parametrize("length", [1, 2, 9, 40, 568])
def test_sentinels_are_where_t5_puts_them(length):
    import seqio
    from t5.data import preprocessors

    token_RN, key_R = rows(4, length), key_of(2, np.arange(4))
    mask_RN = T5.noise_mask(key_R, length)
    inputs_RI, targets_RT = T5.corrupt(token_RN, key_R)
    vocabulary = seqio.PassThroughVocabulary(T5.first_sentinel + 1)
    for row in range(4):
        theirs = [
            step(token_RN[row], mask_RN[row], vocabulary, [[0, 0]]).numpy().tolist()
            for step in (
                preprocessors.noise_span_to_unique_sentinel,
                preprocessors.nonnoise_span_to_unique_sentinel,
            )
        ]
        assert [inputs_RI[row].tolist(), targets_RT[row].tolist()] == theirs


def test_every_mask_is_as_likely():
    # 8 tokens, 4 of them out in 2 spans: 3 ways to cut the 4 that go, 3 for the 4 that stay.
    corruption = SpanCorruption(0.5, 2.0, 31_999)
    mask_RN = corruption.noise_mask(key_of(3, np.arange(36_000)), 8)
    counts = np.unique(mask_RN @ (1 << np.arange(8)), return_counts=True)[1]
    assert len(counts) == 9
    assert np.abs(counts - 4000).max() < 5 * 60  # 4,000 give or take sqrt(4000 * 8/9)


def test_each_place_is_taken_as_often_as_by_t5():
    import tensorflow as tf
    from t5.data import preprocessors

    @tf.function
    def mask(seed):
        seeds = tf.stack([[seed, 1], [seed, 2]])
        return preprocessors.random_spans_noise_mask(tf.constant(40), 0.15, seeds, 3.0)

    count = 4000
    theirs_N = np.mean([mask(tf.constant(seed)).numpy() for seed in range(count)], axis=0)
    ours_N = T5.noise_mask(key_of(4, np.arange(40_000)), 40).mean(axis=0)
    deviation_N = np.sqrt(ours_N * (1 - ours_N) * (1 / count + 1 / 40_000)) + 1e-9
    assert (np.abs(theirs_N - ours_N) / deviation_N).max() < 5


def test_a_rows_spans_are_its_own():
    token_RN, key_R = rows(6, 50), key_of(9, np.arange(6))
    together = T5.corrupt(token_RN, key_R)
    for row in range(6):
        alone = T5.corrupt(token_RN[row : row + 1], key_R[row : row + 1])
        assert all(np.array_equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))
    assert len({tuple(row) for row in T5.noise_mask(key_R, 568).tolist()}) == 6
