"""Tasks by name, the user's own among them, and what preflight says of each mistake."""

import sys

import numpy as np
import pytest

from switchx.data import (
    eval_batches,
    preflight,
    task_eval_batches,
    train_stream,
    vocabulary,
)
from switchx.errors import UserError

from ..conftest import digest, docs_config

pytestmark = pytest.mark.usefixtures("one_device")

TEXTS = [f"number {i} is followed by number {i + 1}" for i in range(7)]
LENGTHS = {"inputs": 64, "targets": 64}


def own_config(name, **changes):
    values = {"feature_lengths": LENGTHS, "task_module": "tests.data.own_tasks", **changes}
    return docs_config(mixture_or_task_name=name, **values)


def test_a_task_of_the_users_own():
    config = own_config("own_shouting", batch_size=7)
    preflight(config)
    (batch,) = eval_batches(config)
    words = vocabulary(config)
    assert words.size == 359
    found = [
        (words.decode(inputs), words.decode(targets))
        for inputs, targets in zip(
            batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
        )
    ]
    assert found == [(text, text.upper()) for text in TEXTS]


@pytest.mark.parametrize("name", ["own_mixture", "own_branching", "own_with_docs"])
def test_other_kinds_of_the_users_own(name):
    config = own_config(name)
    preflight(config)
    stream = train_stream(config)
    assert len({digest(next(stream)) for _ in range(3)}) == 3


def test_the_tasks_of_a_mixture_that_are_evaluated_alone():
    """Those with a validation split; a task that is no mixture has none besides."""
    config = own_config("own_uneven", eval_each_task=True, batch_size=7)
    preflight(config)
    alone = task_eval_batches(config)
    assert list(alone) == ["own_branching", "own_only_validation"]
    for task, make_batches in alone.items():
        expected = [digest(batch) for batch in eval_batches(own_config(task, batch_size=7))]
        assert [digest(batch) for batch in make_batches()] == expected != []
    assert task_eval_batches(own_config("own_branching", eval_each_task=True)) == {}
    assert task_eval_batches(own_config("own_uneven")) == {}


def test_all_of_a_mixtures_split_is_each_example_once():
    config = own_config("own_mixture", batch_size=4, eval_batches=None)
    rows = np.concatenate([batch["encoder_input_tokens"] for batch in eval_batches(config)])
    texts = map(vocabulary(config).decode, rows)
    assert sorted(filter(None, texts)) == sorted(TEXTS + [text[:10] for text in TEXTS])


def test_a_module_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "lying_here.py").write_text(
        "import seqio\nfrom tests.data import own_tasks\n"
        "seqio.TaskRegistry.add('lying_here', source=seqio.TaskRegistry.get('own_shouting').source,"
        " preprocessors=[seqio.preprocessors.tokenize],"
        " output_features=seqio.TaskRegistry.get('own_shouting').output_features)\n"
    )
    monkeypatch.chdir(tmp_path)
    preflight(own_config("lying_here", task_module="lying_here"))
    assert str(tmp_path) not in sys.path


def test_another_vocabulary_for_a_task(t5_model):
    plain = own_config("own_shouting", batch_size=7)
    config = own_config("own_shouting", batch_size=7, vocabulary=t5_model)
    (batch,) = eval_batches(config)
    assert vocabulary(config).decode(batch["encoder_input_tokens"][3]) == TEXTS[3]
    # The registered task keeps its own.
    assert (
        vocabulary(plain).decode(next(eval_batches(plain))["encoder_input_tokens"][3]) == TEXTS[3]
    )


def test_one_vocabulary_for_all_tasks_of_a_mixture(t5_model):
    config = own_config("own_mixture", vocabulary=t5_model, batch_size=14)
    (batch,) = eval_batches(config)
    found = sorted(map(vocabulary(config).decode, batch["encoder_input_tokens"]))
    assert found == sorted(TEXTS + [text[:10] for text in TEXTS])


def test_bytes_for_the_embedded_task():
    config = docs_config(vocabulary="bytes", batch_size=2)
    batch = next(train_stream(config))
    assert vocabulary(config).size == 359
    assert (batch["encoder_input_tokens"] != 0).all()
    assert ((batch["encoder_input_tokens"] > 258).sum(axis=1) == 3).all()  # spans


def test_a_task_of_t5_with_a_local_vocabulary(t5_model):
    with pytest.raises(UserError, match=r"has no prepared dataset 'c4/en:2.2.0'"):
        preflight(docs_config(mixture_or_task_name="c4_v220_span_corruption", vocabulary=t5_model))


MISTAKES = {
    "misspelt": (
        docs_config(mixture_or_task_name="python_docs_span_coruption"),
        "MIXTURE_OR_TASK_NAME='python_docs_span_coruption' is not registered with seqio; "
        "near it are 'python_docs_span_corruption'",
    ),
    "nothing like it": (
        docs_config(mixture_or_task_name="zzz"),
        "'zzz' is not .*; no name is near",
    ),
    "no module": (
        own_config("own_shouting", task_module="no.such.module"),
        r"MIXTURE_OR_TASK_MODULE='no.such.module' cannot be imported \(ModuleNotFoundError: "
        r"No module named",
    ),
    "no validation": (
        own_config("own_without_validation"),
        "'own_without_validation' has the splits 'train' and lacks 'validation'",
    ),
    "empty": (own_config("own_empty"), "'own_empty' gives no example for the split 'train'"),
    "a task of nothing": (
        own_config("own_half_empty", eval_each_task=True),
        "EVAL_EACH_TASK=True needs every task, and 'own_empty' gives no example for the split",
    ),
    "no inputs": (
        own_config("own_language_model"),
        "'own_language_model' has the features 'targets' and lacks 'inputs'",
    ),
    "a step that raises": (
        own_config("own_raising"),
        r"'own_raising' cannot be built with .* \(OSError: \[Errno 5\] in a step of the user's\)",
    ),
    "a module that exits": (
        own_config("own_shouting", task_module="tests.data.exiting"),
        r"MIXTURE_OR_TASK_MODULE='tests.data.exiting' cannot be imported \(SystemExit: 3\)",
    ),
    "two vocabularies": (
        own_config("own_two_vocabularies"),
        "'own_two_vocabularies' has one vocabulary for 'inputs' and another for 'targets'",
    ),
    "no vocabulary": (
        docs_config(vocabulary="/no/such.model"),
        "VOCABULARY='/no/such.model' leads to '/no/such.model', which cannot be read",
    ),
    "short targets": (
        docs_config(feature_lengths={"inputs": 512, "targets": 100}),
        "TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 100} is .* give at least 114 targets",
    ),
    "short inputs": (
        docs_config(feature_lengths={"inputs": 5, "targets": 100}),
        "rows so short that they hold no whole span: give at least 10 inputs",
    ),
    "settings of its own": (
        own_config("own_longer_spans", feature_lengths={"inputs": 64, "targets": 40}),
        "corrupting 64 inputs makes 6[0-9] targets",
    ),
    "too many spans": (
        docs_config(vocabulary="bytes", feature_lengths={"inputs": 2048, "targets": 600}),
        "2048 inputs take 114 sentinels and VOCABULARY='bytes' has 100",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_preflight(mistake):
    config, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        preflight(config)


def test_preflight_of_the_embedded_task():
    preflight(docs_config(feature_lengths={"inputs": 512, "targets": 114}))


def test_a_module_that_fails(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("raise RuntimeError('in the middle')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"MIXTURE_OR_TASK_MODULE='failing' .*RuntimeError: in the middle"
    ):
        preflight(own_config("own_shouting", task_module="failing"))


def test_the_public_vocabulary_without_network(monkeypatch):
    from switchx.data.tasks import vocabulary_files

    def refuse(read, path, setting):
        raise UserError(f"{setting} leads to {path!r}")

    monkeypatch.setattr(vocabulary_files, "within_limit", refuse)
    with pytest.raises(
        UserError, match="VOCABULARY='default' leads to 'gs://t5-data/vocabs/cc_all"
    ):
        preflight(docs_config(mixture_or_task_name="c4_v310_span_corruption"))
    with pytest.raises(UserError, match="VOCABULARY='t5' leads to 'gs://t5-data/vocabs/cc_all"):
        preflight(docs_config(vocabulary="t5"))


def test_the_lengths_of_rows_hold_the_end_of_sequence():
    batch = next(
        train_stream(own_config("own_shouting", feature_lengths={**LENGTHS, "targets": 9}))
    )
    assert batch["decoder_target_tokens"].shape == (4, 9)
    assert np.isin(batch["encoder_input_tokens"], [1]).any(axis=1).all()


def test_without_the_package_t5_its_tasks_are_advised(monkeypatch):
    monkeypatch.setitem(sys.modules, "t5.data.mixtures", None)
    with pytest.raises(UserError, match="pip install --no-deps t5"):
        preflight(docs_config(mixture_or_task_name="c4_v000_span_corruption"))
