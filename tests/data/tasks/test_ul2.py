"""UL2's mixtures of denoisers against t5's functions, and against rows cut and counted here."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest

from switchx import data
from switchx.data.examples import examples_of, filled_in
from switchx.data.tasks.lookup import find_provider
from switchx.data.tasks.vocabularies import Bytes
from switchx.errors import UserError

from ..conftest import docs_config, record, write_lines
from .pieces import model_with

# Tay et al. 2022, table 1: the share that is cut out and the mean span; of S one span alone.
PAPER = {
    "r3_15": (0.15, 3),
    "r8_15": (0.15, 8),
    "s_25": (0.25, math.inf),
    "x3_50": (0.5, 3),
    "x8_50": (0.5, 8),
    "x64_15": (0.15, 64),
    "x64_50": (0.5, 64),
}
MODES = {"r": "[NLU]", "s": "[S2S]", "x": "[NLG]"}
WORDS = Bytes()
TEXTS = [f"number {n} comes before {n + 1}" for n in range(128)]  # T5 joins so many documents


def test_denoisers_are_t5s_span_corruption():
    """From the same seed the same rows, of each mode; the other densities and spans are counted in
    the rows below."""
    import seqio
    import tensorflow as tf
    from t5.data import preprocessors

    lengths = {"inputs": 400, "targets": 400}
    asked = docs_config(mixture_or_task_name="python_docs_ul2", feature_lengths=lengths)
    mixture = find_provider(asked)
    assert {mixture.get_rate(task) for task in mixture.tasks} == {1.0}
    assert {task.name for task in mixture.tasks} == {f"python_docs_ul2_{kind}" for kind in PAPER}
    document = np.random.default_rng(0).integers(3, 800, 2000).astype(np.int32)
    feature = seqio.Feature(seqio.PassThroughVocabulary(1000))

    def rows(corruption, **settings):
        dataset = tf.data.Dataset.from_tensors({"targets": document})
        with seqio.utils.map_seed_manager(7):
            made = corruption(dataset, lengths, dict.fromkeys(lengths, feature), **settings)
        return [
            (row["inputs"].tolist(), row["targets"].tolist()) for row in made.as_numpy_iterator()
        ]

    tasks = {task.name.removeprefix("python_docs_ul2_"): task for task in mixture.tasks}
    for kind in ("r3_15", "s_25", "x64_50"):
        task, (density, mean) = tasks[kind], PAPER[kind]
        mean = 400 * 4 / 3 / 4 if mean == math.inf else float(mean)  # L / 4 of rows of L tokens
        settings = {"noise_density": density, "mean_noise_span_length": mean}
        ours = rows(task.preprocessors[2])
        assert ours == rows(preprocessors.span_corruption, **settings)
        if kind == "s_25":  # a prefix, and what follows it
            inputs, targets = ours[0]
            assert inputs == [*document[:398], 999]
            assert targets == [999, *document[398:531]]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    write_lines(folder / "train.json", map(record, TEXTS))
    made = data.DataConfig(
        mixture_or_task_name="c4_json_ul2",
        feature_lengths={"inputs": 120, "targets": 120},
        batch_size=70,
        vocabulary="bytes",
        json_train_glob=str(folder / "train.json"),
        json_validation_glob=str(folder / "train.json"),
        prepared_dir=str(folder / "prepared"),
        mode_tokens=True,
    )
    data.prepare(made, splits=("train",))
    return made


def counts_of(kind, inputs):
    """Tokens of a full row, those cut out and their spans, so that `inputs` are full."""
    density, mean = PAPER[kind]
    for tokens in range(3 * inputs, 1, -1):
        noise = round(tokens * density)
        spans = max(round(noise / mean), 1)
        kept = tokens - noise
        if kept + spans + 1 <= inputs and (density < 0.5 or noise <= kept):
            return tokens, noise, spans
    raise AssertionError


def shape_of(inputs, targets):
    sentinels = sum(token >= 259 for token in inputs)
    noise = len(targets) - 1 - sentinels
    return len(inputs) - 1 - sentinels + noise, noise, sentinels


@pytest.mark.parametrize("prepared", [False, True])
def test_a_text_comes_in_seven_ways(config, prepared):
    """Whole, behind the tokens of its mode, and of each row in another way in each epoch."""
    kinds = {counts_of(kind, 120 - 5): kind for kind in PAPER}
    assert len(kinds) == 7
    whole = [token for text in TEXTS for token in WORDS.encode(text)]
    found, ways = collections.Counter(), collections.defaultdict(set)
    folder = config.prepared_dir if prepared else None
    stream = data.train_stream(dataclasses.replace(config, prepared_dir=folder))
    for batch in itertools.islice(stream, 20):
        for inputs, targets in examples_of(batch):
            assert inputs[-1] == targets[-1] == WORDS.eos_id
            shape = shape_of(inputs[5:], targets)
            text = filled_in(inputs[5:-1], targets, WORDS)
            kind = kinds.get(shape)
            if kind is None:  # what the text leaves over
                assert whole[-len(text) :] == text
                continue
            assert text in [whole[at : at + len(text)] for at in range(0, len(whole), len(text))]
            assert WORDS.decode(inputs[:5]) == MODES[kind[0]]
            found[kind] += 1
            ways[kind, tuple(text)].add(tuple(inputs))
    stream.close()
    total = sum(found.values())
    assert total > 1250
    for kind in PAPER:  # as often, give or take five standard deviations
        assert abs(found[kind] - total / 7) < 5 * math.sqrt(total * 6 / 49)
    often = [len(of) for (kind, _), of in ways.items() if kind == "r3_15"]
    assert np.mean(often) > 0.9 * found["r3_15"] / len(often) > 4


def test_a_text_to_evaluate_is_corrupted_as_t5_does_behind_its_mode(config, tmp_path):
    (tmp_path / "text").write_text(" ".join(TEXTS[:20]))
    text = data.read_text(tmp_path / "text", "--text")
    (batch,) = data.text_batches(text, config)
    for inputs, targets in itertools.islice(examples_of(batch), 3):
        assert WORDS.decode(inputs[:5]) == "[NLU]"
        assert shape_of(inputs[5:], targets) == counts_of("r3_15", 115)


def refused(of, **changes):
    with pytest.raises(UserError) as caught:
        data.preflight(dataclasses.replace(of, **changes), ["train"])
    return str(caught.value)


def test_mistakes_are_named(config, tmp_path):
    streamed = dataclasses.replace(config, prepared_dir=None, mode_tokens=False)
    of_512 = refused(streamed, feature_lengths={"inputs": 512, "targets": 114})
    assert "128 sentinels" in of_512
    assert "give at most 403 inputs, with 403 targets" in of_512
    short = refused(streamed, feature_lengths={"inputs": 403, "targets": 114})
    assert "give at least 403 targets" in short
    data.check_objective(
        dataclasses.replace(streamed, feature_lengths={"inputs": 403, "targets": 403})
    )
    of_c4 = dataclasses.replace(streamed, mixture_or_task_name="c4_json_span_corruption")
    for plain in (of_c4, docs_config()):
        assert "MODE_TOKENS=True is for UL2's denoisers" in refused(plain, mode_tokens=True)
    (tmp_path / "words.model").write_bytes(model_with())
    assert "has no pieces for '[NLG]'" in refused(
        streamed, mode_tokens=True, vocabulary=str(tmp_path / "words.model")
    )
    assert "MODE_TOKENS=False but the set of 'c4_json_ul2_r3_15'" in refused(
        config, mode_tokens=False
    )
    with pytest.raises(UserError, match=r"MODE_TOKENS=False but .* was prepared with True"):
        data.prepare(dataclasses.replace(config, mode_tokens=False), splits=("train",))
