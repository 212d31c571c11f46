"""Mixtures that gin makes: rates, tasks that join late, and what is said of each mistake."""

import dataclasses
import shutil

import numpy as np
import pytest

from switchx import data
from switchx.data.tasks.rates import by_examples
from switchx.errors import UserError

from ..conftest import digest, docs_config

LENGTHS = {"inputs": 64, "targets": 64}
BOTH = {"own_many": 1.0, "own_few": 1.0}


def mixed(tasks, **changes):
    return docs_config(
        mixture_or_task_name="mine",
        mixture_tasks=tasks,
        task_module="tests.data.own_tasks",
        feature_lengths=LENGTHS,
        **changes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sets of two tasks, and of a mixture whose tasks do not all have both splits."""
    path = str(tmp_path_factory.mktemp("sets"))
    found = data.prepare(mixed({**BOTH, "own_uneven": 1.0}, prepared_dir=path))
    assert {info.plan.task: sorted(info.shards) for info in found} == {
        "own_branching": ["train", "validation"],
        "own_few": ["train", "validation"],
        "own_many": ["train", "validation"],
        "own_only_validation": ["validation"],
        "own_without_validation": ["train"],
    }
    return path


@pytest.fixture(params=["streamed", "prepared"])
def where(request, folder):
    return {"prepared_dir": folder if request.param == "prepared" else None}


def texts(batches, config):
    words = data.vocabulary(config)
    rows = np.concatenate([batch["encoder_input_tokens"] for batch in batches])
    return [words.decode(row) for row in rows if row.any()]


def words(batches, config):
    """Of each row the first word, which names its task."""
    return [text.split()[0] for text in texts(batches, config)]


def take(config, steps, shards=(0,)):
    stream = data.train_stream(config, shards)
    return [next(stream) for _ in range(steps)]


RATES = [
    ({"own_many": 3.0, "own_few": 1}, {}, 3),
    (("own_many", "own_few"), {}, 16),
    (("own_few", "own_many"), {"mixture_temperature": 2.0}, 4),
    ({"own_many": 32, "own_few": "rate_num_examples"}, {}, 8),
    (("own_many", "own_few"), {"mixture_temperature": 2.0, "mixture_maximum": 36}, 3),
]


def share_of(word, config):
    found = words(take(config, 25), config)
    assert len(found) == 1600
    return found.count(word) / 1600


def about(share):
    """Within four standard deviations of 1,600 throws."""
    return pytest.approx(share, abs=4 * (share * (1 - share) / 1600) ** 0.5)


@pytest.mark.parametrize(("tasks", "scaling", "ratio"), RATES)
def test_rates(folder, tasks, scaling, ratio):
    config = mixed(tasks, batch_size=64, prepared_dir=folder, **scaling)
    assert share_of("few", config) == about(1 / (1 + ratio))


def test_rates_of_streamed_tasks():
    tasks, scaling, ratio = RATES[-1]
    assert share_of("few", mixed(tasks, batch_size=64, **scaling)) == about(1 / (1 + ratio))


def test_rates_by_examples_are_those_of_t5():
    from t5.data import rate_num_examples

    class Task:
        cache_dir = "somewhere"

        def get_cached_stats(self, split):
            return {"examples": 1000}

    for maximum, temperature in ((None, 1.0), (100, 1.0), (None, 3.0), (100, 3.0)):
        theirs = rate_num_examples(Task(), maximum=maximum, temperature=temperature)
        assert by_examples(1000, temperature, maximum) == pytest.approx(theirs)


def test_a_mixture_in_a_mixture(where):
    config = mixed({"own_many": 1.0, "own_uneven": 3.0}, batch_size=64, **where)
    assert share_of("many", config) == about(1 / 3)  # a third of the 3.0 has nothing to train on
    alone = data.task_eval_batches(dataclasses.replace(config, eval_each_task=True))
    assert list(alone) == ["own_branching", "own_many", "own_only_validation"]
    assert texts(alone["own_only_validation"](), config)[6] == "number 6 is followed by number 7"
    whole = dataclasses.replace(config, eval_batches=None)
    assert len(texts(data.eval_batches(whole), whole)) == 64 + 7 + 7


@pytest.mark.parametrize("shards", [1, 2])
def test_a_task_joins_at_its_step(where, shards):
    config = mixed(BOTH, mixture_starts={"own_few": 5}, batch_size=8, shards=shards, **where)
    batches = take(config, 40, range(shards))
    assert set(words(batches[:5], config)) == {"many"}
    assert words(batches[5:], config).count("few") / (35 * 8) == pytest.approx(1 / 2, abs=0.1)
    for batch in batches[5:10]:
        assert set(words([batch], config)) == {"many", "few"}
    if where["prepared_dir"]:  # each task's examples come as if it were alone, once an epoch
        many = [text for text in texts(batches, config) if text.startswith("many")]
        assert len(set(many[:64])) == 64
        assert len(set(many[64:128])) == 64


def test_a_resume_before_and_behind_a_joining(where):
    """With another size of batch too: steps count as the run began, and no example changes."""
    config = mixed(BOTH, mixture_starts={"own_few": 5}, **where)
    stream, batches, states = data.train_stream(config), [], []
    for _ in range(12):
        states.append(stream.state())
        batches.append(next(stream))
    expected, whole = list(map(digest, batches)), texts(batches, config)
    assert len(set(expected)) == 12
    for step in (2, 5):
        restarted = data.train_stream(config)
        restarted.restore(states[step])
        assert [digest(next(restarted)) for _ in range(12 - step)] == expected[step:]
    other = dataclasses.replace(config, batch_size=6)
    after = data.train_stream(other)
    after.restore(states[0])  # later ones hold examples beyond the joining, read ahead
    assert texts([next(after) for _ in range(5)], other) == whole[:30]
    last = data.train_stream(config)
    last.restore(after.state())
    assert texts([next(last) for _ in range(2)], config) == whole[30:38]


def test_a_position_of_another_mixture(where):
    config = mixed(BOTH, mixture_starts={"own_few": 5}, **where)
    (state,) = data.train_stream(config).state().values()
    data.check_position(config, state)
    for change, said in (
        ({"mixture_tasks": {"own_many": 2.0, "own_few": 1.0}}, "MIXTURE_TASKS={'own_many': 2.0, "),
        (
            {"mixture_starts": {"own_few": 6}},
            r"MIXTURE_STARTS={'own_few': 6}, but .* {'own_few': 5",
        ),
        ({"mixture_starts": None}, "MIXTURE_STARTS=None, but "),
        ({"mixture_temperature": 2.0}, "MIXTURE_TEMPERATURE=2.0, but .* with 1.0"),
    ):
        with pytest.raises(UserError, match=said):
            data.check_position(dataclasses.replace(config, **change), state)


def test_the_prepared_data_needs_no_seqio_to_be_mixed_anew(folder, monkeypatch):
    monkeypatch.setattr("switchx.data.tasks.lookup.find_provider", lambda *_: 1 / 0)
    config = mixed(("own_few", "own_many"), mixture_starts={"own_many": 2}, prepared_dir=folder)
    data.preflight(config)
    batches = take(config, 3)
    assert len(batches) == 3


TWO = "whose vocabularies are different, and a model has one: "
MISTAKES = {
    "no mixture": (mixed("own_many"), "MIXTURE_TASKS='own_many' is no mixture: name its tasks"),
    "nothing": (mixed(()), r"MIXTURE_TASKS=\(\) is no mixture"),
    "no names": (mixed((1, 2)), r"MIXTURE_TASKS=\(1, 2\) is no mixture"),
    "a rate of zero": (
        mixed({"own_many": 1.0, "own_few": 0}),
        r"MIXTURE_TASKS\['own_few'\]=0 is no rate: give a number above 0 or 'rate_num_examples'",
    ),
    "no rate": (mixed({"own_many": float("inf")}), r"MIXTURE_TASKS\['own_many'\]=inf is no rate"),
    "twice": (mixed(("own_few",) * 2), r"MIXTURE_TASKS=\(.*\) names 'own_few' twice"),
    "unknown": (
        mixed(("own_many", "own_fee")),
        "MIXTURE_TASKS names 'own_fee', which is not registered with seqio; near it are 'own_few'",
    ),
    "its own name": (
        dataclasses.replace(mixed(BOTH), mixture_or_task_name="own_few"),
        "MIXTURE_OR_TASK_NAME='own_few' is one of MIXTURE_TASKS",
    ),
    "another's name": (
        dataclasses.replace(mixed(BOTH), mixture_or_task_name="own_mixture"),
        "MIXTURE_OR_TASK_NAME='own_mixture' is registered with seqio, and MIXTURE_TASKS makes",
    ),
    "vocabularies": (
        mixed({"own_many": 1.0, "python_docs_span_corruption": 1.0}),
        f"'mine' mixes 'own_many' and 'python_docs_span_corruption', {TWO}name tasks that share",
    ),
    "public vocabularies": (
        mixed({"c4_v310_span_corruption": 1.0, "mc4_de_span_corruption": 1.0}),
        f"'c4_v310_span_corruption' and 'mc4_de_span_corruption', {TWO}",
    ),
    "features": (
        mixed({"own_many": 1.0, "own_language_model": 1.0}),
        "MIXTURE_TASKS names 'own_many' of the features inputs, targets and 'own_language_model'",
    ),
    "uncounted": (
        mixed(("own_many", "own_shouting")),
        "MIXTURE_TASKS names 'own_shouting', of which the number of examples is not known",
    ),
    "a mixture without a rate": (
        mixed(("own_many", "own_mixture")),
        "MIXTURE_TASKS names 'own_mixture', a mixture, which has no number of examples of its own",
    ),
    "temperature": (
        mixed(BOTH, mixture_temperature=0),
        "MIXTURE_TEMPERATURE=0 is no temperature: give a number above 0",
    ),
    "maximum": (mixed(BOTH, mixture_maximum="many"), "MIXTURE_MAXIMUM='many' is no number of"),
    "nothing to temper": (
        mixed(BOTH, mixture_temperature=2.0),
        "MIXTURE_TEMPERATURE=2.0 is for rates by numbers of examples, and MIXTURE_TASKS has none",
    ),
    "no step": (
        mixed(BOTH, mixture_starts={"own_few": -1}),
        r"MIXTURE_STARTS\['own_few'\]=-1 is no step: give a whole number",
    ),
    "no steps": (mixed(BOTH, mixture_starts=("own_few",)), "MIXTURE_STARTS=.* names no steps"),
    "all wait": (
        mixed(BOTH, mixture_starts={"own_few": 1, "own_many": 2}),
        "MIXTURE_STARTS=.* lets all tasks of MIXTURE_OR_TASK_NAME='mine' wait",
    ),
    "no such task": (
        mixed(BOTH, mixture_starts={"own_fee": 1}),
        "names 'own_fee', and MIXTURE_OR_TASK_NAME='mine' trains on 'own_few', 'own_many': name",
    ),
    "one task": (
        dataclasses.replace(mixed(None, mixture_starts={"a": 1}), mixture_or_task_name="own_few"),
        "MIXTURE_STARTS={'a': 1} is of a mixture, and MIXTURE_OR_TASK_NAME='own_few' is a task",
    ),
    "packed": (
        mixed(BOTH, mixture_starts={"own_few": 1}, pack=True),
        "MIXTURE_STARTS={'own_few': 1} with PACK=True: streamed examples are mixed before",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    config, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence) as caught:
        data.preflight(config, ["train"])
    assert "\n" not in str(caught.value)


def test_sets_of_different_vocabularies(folder, tmp_path):
    shutil.copytree(f"{folder}/own_many", tmp_path / "own_many")
    data.prepare(
        dataclasses.replace(
            mixed(None, prepared_dir=str(tmp_path), vocabulary="python_docs"),
            mixture_or_task_name="own_few",
        )
    )
    with pytest.raises(UserError, match="'own_few' and 'own_many', whose sets in PREPARED_DIR="):
        data.preflight(mixed(BOTH, prepared_dir=str(tmp_path)))
