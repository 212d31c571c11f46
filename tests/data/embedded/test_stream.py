"""Rows without TensorFlow are those of seqio's pipeline, bit for bit; so are their positions."""

import dataclasses
import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest

from switchx import data
from switchx.data import embedded
from switchx.data.embedded import tokens
from switchx.data.tasks import corpus, recipes
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError

from ..conftest import digest, docs_config, sentences


@pytest.fixture(scope="module")
def small(tmp_path_factory, docs_corpus):
    """A corpus of an epoch of a few batches, one of its documents longer than seqio takes whole."""
    cache = tmp_path_factory.mktemp("cache")
    folder = corpus.locate(cache).folder
    folder.mkdir(parents=True)
    shutil.copy(docs_corpus.vocabulary_path, folder)
    texts = sentences(250)
    texts[77] = " ".join(f"{n}, {n * 7}" for n in range(20_000))
    for number, count in enumerate((40, 17, 16, 1, 100)):
        taken = [texts.pop() for _ in range(count)]
        (folder / f"train-{number:05d}-of-00005.txt").write_text("\n".join(taken) + "\n")
    (folder / "validation-00000-of-00001.txt").write_text("\n".join(texts) + "\n")
    return docs_config(cache_dir=str(cache), eval_batches=None)


def seqios(config, shards):
    load_tensorflow()
    from switchx.data.streamed.stream import StreamedStream

    return StreamedStream(config, shards)


def assert_same(ours, theirs):
    for own, other in itertools.zip_longest(ours, theirs):
        assert own.keys() == other.keys()
        for name, x_BL in own.items():
            assert x_BL.dtype == other[name].dtype
            np.testing.assert_array_equal(x_BL, other[name])


@pytest.mark.parametrize(("shards", "read", "seed"), [(2, [0, 1], 3), (6, [0, 5], 2**31 - 1)])
def test_training_rows_are_seqios(small, shards, read, seed):
    """Through more than an epoch; by files, and with more shards than files by documents."""
    config = dataclasses.replace(small, shards=shards, seed=seed, batch_size=120)
    ours = data.train_stream(config, read)
    assert isinstance(ours, embedded.EmbeddedStream)
    assert_same(itertools.islice(ours, 14), itertools.islice(seqios(config, read), 14))


def test_a_run_that_tensorflow_began_goes_on(small):
    """Behind more than an epoch of one shard, which is the same too."""
    config = dataclasses.replace(small, batch_size=120)
    theirs, ours = seqios(config, [0]), data.train_stream(config)
    assert_same(itertools.islice(ours, 14), itertools.islice(theirs, 14))
    resumed = data.train_stream(config)
    resumed.restore(theirs.state())
    assert_same(itertools.islice(resumed, 2), itertools.islice(theirs, 2))


def test_evaluation_rows_are_seqios(small):
    load_tensorflow()
    from switchx.data.streamed import stream

    ours = list(data.eval_batches(small))
    assert_same(ours, stream.evaluation_batches(small))
    assert_same(data.eval_batches(dataclasses.replace(small, eval_batches=2)), ours[:2])


def test_a_prefix_and_a_rest_are_seqios(small):
    code = dataclasses.replace(
        small,
        mixture_or_task_name="python_code_prefix_lm",
        vocabulary="python_docs",
        feature_lengths={"inputs": 16, "targets": 112},
    )
    there, here = (
        corpus.locate(code.cache_path, recipe=r).folder for r in (recipes.DOCS, recipes.CODE_1000)
    )
    shutil.copytree(there, here, ignore=shutil.ignore_patterns("*.npz"))
    assert embedded.reads(code)
    assert_same(
        itertools.islice(data.train_stream(code), 30), itertools.islice(seqios(code, [0]), 30)
    )


def test_a_position_brings_back_the_next_row(small):
    stream = data.train_stream(small)
    skipping = data.train_stream(small)
    states, expected = [], []
    for _ in range(300):
        states.append(stream.state())
        expected.append(digest(next(stream)))
    for step in (299, 0, 256):
        other = data.train_stream(dataclasses.replace(small, batch_size=2))
        other.restore(states[step])
        again = data.batches.joined([next(other), next(other)])
        assert digest(again) == expected[step]
    skipping.skip(4 * 270)
    assert digest(next(skipping)) == expected[270]


def test_damaged_positions_are_refused(small):
    stream = data.train_stream(small)
    (state,) = stream.state().values()
    for damaged in (b"{}", state[:-9], state.replace(b'"given": 0', b'"given": -1'), state[::-1]):
        with pytest.raises(UserError, match="position"):
            stream.restore({0: damaged})
    with pytest.raises(UserError, match="SEED=1"):
        data.train_stream(dataclasses.replace(small, seed=1)).restore({0: state})


WITHOUT = """
import sys
from tests.data.conftest import docs_config
from switchx import data
config = docs_config()
data.preflight(config)
next(data.train_stream(config)), next(data.eval_batches(config))
assert not {"tensorflow", "seqio", "jax"} & set(sys.modules)
"""


def test_a_second_start_needs_no_tensorflow():
    embedded.EmbeddedStream(docs_config())  # makes the tokens where no start did before
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_damaged_tokens_are_made_again(small, capsys):
    (path,) = corpus.locate(small.cache_path).folder.glob("tokens.*.npz")
    expected, whole = digest(next(data.train_stream(small))), path.read_bytes()
    path.write_bytes(whole[:500] + b"x" + whole[501:])
    tokens._kept.cache_clear()
    assert digest(next(data.train_stream(small))) == expected
    assert "tokens in" in capsys.readouterr().err
    assert path.read_bytes() == whole
