"""mC4: which languages there are, what each task reads, and how a mixture draws from them."""

import dataclasses

import numpy as np
import pytest

from switchx.data import preflight, train_stream, vocabulary
from switchx.data.tasks import names, task_files
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError

from ..conftest import digest, docs_config, record, write_lines
from .test_tfds import prepare

# Languages that nobody could mix up, and how many documents each has.
ALPHABETS = {"de": "abc", "sw": "fgh", "zh-Latn": "klm"}
DOCUMENTS = {"de": 400, "sw": 40, "zh-Latn": 10}


def texts(language, count, seed=0):
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list(ALPHABETS[language]), 100)) for _ in range(count)]


def language_of(text):
    letters = set(text.replace("<extra_id_", "").replace(">", "")) - set("0123456789 ")
    (language,) = (name for name in ALPHABETS if letters <= set(ALPHABETS[name]))
    return language


@pytest.fixture(scope="module")
def json_config(tmp_path_factory):
    """The mixture of three languages, with files as allenai/c4 names them."""
    folder = tmp_path_factory.mktemp("mc4")
    for language, count in DOCUMENTS.items():
        lines = list(map(record, texts(language, count)))
        for shard in range(2):
            write_lines(folder / f"c4-{language}.{shard:05d}.json", lines[shard::2])
        held_out = map(record, texts(language, 20, seed=1))
        write_lines(folder / f"c4-{language}-validation.00000.json", held_out)
    return docs_config(
        mixture_or_task_name="mc4_json_span_corruption",
        json_train_glob=str(folder / "c4-{language}.*.json"),
        json_validation_glob=str(folder / "c4-{language}-validation.*.json"),
        vocabulary="bytes",
        batch_size=100,
    )


@pytest.fixture(scope="module")
def tfds_config(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    splits = {}
    for language, count in DOCUMENTS.items():
        splits[language] = texts(language, count)
        splits[f"{language}-validation"] = texts(language, 20, seed=1)
    prepare(root / "c4" / "multilingual" / "3.1.0", splits)
    return docs_config(
        mixture_or_task_name="mc4_span_corruption",
        tfds_data_dir=str(root),
        vocabulary="bytes",
        batch_size=100,
    )


def named(config, name):
    return dataclasses.replace(config, mixture_or_task_name=name)


@pytest.fixture(scope="module")
def json_stream(json_config):
    return train_stream(json_config)


@pytest.fixture(scope="module")
def tfds_stream(tfds_config):
    return train_stream(tfds_config)


def languages_of_rows(config, stream, batches):
    words = vocabulary(config)
    rows = [row for _ in range(batches) for row in next(stream)["encoder_input_tokens"]]
    return [language_of(words.decode(row)) for row in rows]


def test_the_languages():
    load_tensorflow()
    from tensorflow_datasets.text import c4

    assert sorted(names.LANGUAGES) == sorted(c4.MC4_LANGUAGES)
    assert len(names.MC4) == 2 * 107 + 2


@pytest.mark.parametrize("kind", ["json", "tfds"])
def test_the_mixture_draws_by_size_to_the_power_of_0_3(kind, request):
    """Documents are of one length here, so that bytes and documents give the same rates."""
    config = request.getfixturevalue(f"{kind}_config")
    stream = request.getfixturevalue(f"{kind}_stream")
    drawn = languages_of_rows(config, stream, batches=6)  # fails on a row of two languages
    weights = np.array(list(DOCUMENTS.values())) ** 0.3
    expected = weights / weights.sum() * len(drawn)
    found = np.array([drawn.count(language) for language in DOCUMENTS])
    # Three standard deviations; drawn by size alone it would be 533, 53 and 13 of 600.
    assert (np.abs(found - expected) < 3 * np.sqrt(expected)).all()


@pytest.mark.parametrize("kind", ["json", "tfds"])
def test_a_task_reads_its_language(kind, request):
    name = {"json": "mc4_json_{}_span_corruption", "tfds": "mc4_{}_span_corruption"}[kind]
    config = named(request.getfixturevalue(f"{kind}_config"), name.format("zh_Latn"))
    assert set(languages_of_rows(config, train_stream(config), batches=1)) == {"zh-Latn"}


@pytest.mark.parametrize("kind", ["json", "tfds"])
def test_the_languages_that_are_there_are_said(kind, request, capsys):
    task_files.say_once.cache_clear()
    config = request.getfixturevalue(f"{kind}_config")
    preflight(config)
    assert capsys.readouterr().err.count("has data of 3 of 107 tasks: mc4_") == 1


def test_a_position_of_a_mixture(json_config, json_stream):
    state = json_stream.state()
    expected = [digest(next(json_stream)) for _ in range(2)]
    fresh = train_stream(json_config)
    fresh.restore(state)
    assert [digest(next(fresh)) for _ in range(2)] == expected


MISTAKES = {
    "no language in the glob": (
        {"json_train_glob": "/data/c4-de.*.json"},
        r"C4_JSON_TRAIN='/data/c4-de.\*.json' names no '{language}'",
    ),
    "no glob": ({"json_train_glob": None}, "C4_JSON_TRAIN is not set"),
    "no files": (
        {"json_train_glob": "/no/such/c4-{language}.*"},
        r"C4_JSON_TRAIN='/no/such/c4-af.\*' matches no file",
    ),
    "no validation": (
        {"json_validation_glob": "/no/such/c4-{language}.*"},
        r"C4_JSON_VALIDATION='/no/such/c4-de.\*' matches no file",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(json_config, mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        preflight(dataclasses.replace(json_config, **changes))


def test_a_language_that_was_not_prepared(tfds_config, tmp_path):
    with pytest.raises(
        UserError, match=r"has 'c4/multilingual:3.1.0' without what .* 'mc4_fr_span_corruption'"
    ):
        preflight(named(tfds_config, "mc4_fr_span_corruption"))
    with pytest.raises(UserError, match=r"TFDS_DATA_DIR='.*' has no prepared dataset 'c4/multil"):
        preflight(dataclasses.replace(tfds_config, tfds_data_dir=str(tmp_path)))


def test_a_misspelt_language(json_config):
    with pytest.raises(UserError, match=r"near it are .*'mc4_json_de_span_corruption'"):
        preflight(named(json_config, "mc4_json_dee_span_corruption"))


def test_the_vocabulary_is_that_of_mt5(json_config, monkeypatch):
    from switchx.data.tasks import vocabulary_files

    def refuse(read, path, setting):
        raise UserError(f"{setting} leads to {path!r}")

    monkeypatch.setattr(vocabulary_files, "within_limit", refuse)
    model = "leads to 'gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model'"
    for name in ("mc4_json_span_corruption", "mc4_json_de_span_corruption"):
        with pytest.raises(UserError, match=f"VOCABULARY='default' {model}"):
            preflight(dataclasses.replace(named(json_config, name), vocabulary="default"))
    with pytest.raises(UserError, match=f"VOCABULARY='mt5' {model}"):
        preflight(docs_config(vocabulary="mt5"))
