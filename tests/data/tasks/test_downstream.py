"""The paper's tasks by name: the same examples from TFDS folders, Parquet and JSON lines."""

import sys

import numpy as np
import pytest

from switchx.data.tasks import lookup
from switchx.data.tensorflow_loader import load_tensorflow
from switchx.errors import UserError

from ..conftest import docs_config
from .sets import SETS, tfds_rows, write_json, write_parquet, write_tfds

# The text of each set's first two examples, as its task's publication describes it.
TEXTS = {
    "glue_cola_v002": [
        ("cola sentence: The book was by John written.", "unacceptable"),
        ("cola sentence: Books were sent to each other.", "acceptable"),
    ],
    "super_glue_multirc_v102": [
        ("multirc question: Who left? answer: He paragraph: One: She left. ", "False"),
        ("multirc question: Who left? answer: She paragraph: One: She left. ", "True"),
    ],
    "super_glue_record_v102": [
        (
            "record query: @placeholder met Bob. entities: Ann, Bob passage: Ann met Bob. "
            "They talked.",
            "Ann",
        ),
    ],
    "squad_v010_allanswers": [
        ("question: Where ? context: In 1858 she appeared , in Lourdes . ", "Lourdes"),
    ],
    "cnn_dailymail_v002": [("summarize: A long article.", "Short .\nShorter .")],
    "xsum_v110": [("summarize: All of it.", "A line.")],
    "anli_r3_v010": [
        ("anli_r3 hypothesis: It is wet. context: It rains.", "entailment"),
        ("anli_r3 hypothesis: It is dry. context: It rains.", "contradiction"),
    ],
    "winogrande_xl_v120": [
        ("winogrande sentence: _ won. option1: Ian option2: Dennis", "Dennis"),
        ("winogrande sentence: _ lost. option1: Ian option2: Dennis", "<unk>"),
    ],
    "arc_easy_v100": [(r"which is ice? \n (a) sleet (b) hail (c) sun", "hail")],
    "natural_questions_open": [("nq question: where is it", "London")],
    "web_questions_open": [("wq question: who is it?", "Ann")],
    "trivia_qa_open": [("trivia_qa question: Who was it?", "Ann")],
}
ANSWERS = {
    "squad_v010_allanswers": ["Lourdes", "in Lourdes"],
    "natural_questions_open": ["London", "Greater London"],
    "trivia_qa_open": ["Ann", "Anna", "Annie"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every set thrice: below tfds, and as <task>.parquet and <task>.jsonl."""
    load_tensorflow()
    root = tmp_path_factory.mktemp("sets")
    for task, of in SETS.items():
        rows = tfds_rows(of)
        splits = {split: rows for split in ("train", "train_xl", "validation", "test")}
        write_tfds(root / "tfds", of.dataset, splits)
        write_parquet(root / f"{task}.parquet", of.published)
        write_json(root / f"{task}.jsonl", of.published)
    return root


def config_of(task, **changes):
    lengths = {"inputs": 128, "targets": 32}
    values = {"vocabulary": "bytes", "feature_lengths": lengths, **changes}
    return docs_config(mixture_or_task_name=task, **values)


def from_files(folder, task, ending="parquet", **changes):
    set_of = task.removesuffix("_score_eval")
    files = {"validation": str(folder / f"{set_of}.{ending}")}
    return lookup.find_provider(config_of(task, task_files=files, **changes))


def examples(task):
    return list(task.source.get_dataset("validation", shuffle=False).as_numpy_iterator())


def flat(example, prefix=""):
    """{'answers/text': [...]} of a nested example, in plain values."""
    found = {}
    for name, value in example.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = np.asarray(value).tolist()
    return found


@pytest.mark.parametrize("name", SETS)
def test_the_same_rows_from_tfds_and_from_files(name, folder):
    tfds = lookup.find_provider(config_of(name, tfds_data_dir=str(folder / "tfds")))
    if "[" in str(getattr(tfds.source.tfds_dataset, "_split_map", "")):  # a part of a few rows
        rows = list(tfds.source.tfds_dataset.builder.as_dataset("train").as_numpy_iterator())
    else:
        rows = examples(tfds)
    for ending in ("parquet", "jsonl"):
        found = [flat(row) for row in examples(from_files(folder, name, ending))]
        expected = [{key: flat(row)[key] for key in found[0]} for row in rows]
        assert found == expected != []


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_each_task(name, folder):
    task = from_files(folder, name)
    dataset = task.get_dataset({"inputs": 128, "targets": 32}, "validation", shuffle=False)
    found = list(dataset.take(2).as_numpy_iterator())
    texts = [
        tuple(row[f"{feature}_pretokenized"].decode() for feature in ("inputs", "targets"))
        for row in found
    ]
    assert texts == TEXTS[name]
    if name in ANSWERS:
        assert task.postprocess_fn("", example=found[0], is_target=True) == ANSWERS[name]


def test_the_options_that_are_ranked(folder):
    """Each option is an example; the metric takes the likelier of a question's."""
    from t5.evaluation import metrics

    task = from_files(folder, "arc_easy_v100_score_eval")
    lengths = {"inputs": 128, "targets": 32}
    rows = list(task.get_dataset(lengths, "validation", shuffle=False).as_numpy_iterator())
    texts = [row["targets_pretokenized"].decode() for row in rows]
    assert texts == ["sleet", "hail", "sun"]
    assert {row["inputs_pretokenized"].decode() for row in rows} == {TEXTS["arc_easy_v100"][0][0]}
    targets = [task.postprocess_fn("", example=row, is_target=True) for row in rows]
    (metric,) = task.metric_fns
    for scores, accuracy in (([-3.0, -1.0, -2.0], 100), ([-1.0, -3.0, -2.0], 0)):
        assert metric(targets, scores) == {"accuracy": accuracy}
        assert metric(targets, scores) == metrics.rank_classification(targets, scores)


@pytest.mark.parametrize(
    ("task", "metric"), [("xsum_v110", "rouge"), ("trivia_qa_open", "trivia_qa")]
)
def test_metrics_are_those_of_t5(task, metric, folder):
    from t5.evaluation import metrics

    (function,) = from_files(folder, task).metric_fns
    targets = ["a line of it"] if metric == "rouge" else [["Anna", "the Ann"]]
    expected = getattr(metrics, metric)(targets, ["the ann"])
    assert function(targets, ["the ann"]) == expected != {}
    assert function.__name__ == metric


def test_without_the_package_t5(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "t5", None)
    with pytest.raises(UserError, match=r"'xsum_v110' is scored by 'rouge', a metric of .*no-deps"):
        from_files(folder, "xsum_v110")


def test_generation_by_tfds(tmp_path, monkeypatch):
    """What `tfds build` does, with the package that it imports and does not ask for."""
    pytest.importorskip("importlib_resources")
    import tensorflow_datasets as tfds

    builder = tfds.builder("xsum", data_dir=tmp_path)
    row = {"document": "All of it.", "summary": "A line."}
    splits = {"validation": [("3", row)]}
    monkeypatch.setattr(type(builder), "_split_generators", lambda *_: splits)
    builder.download_and_prepare()
    task = lookup.find_provider(config_of("xsum_v110", tfds_data_dir=str(tmp_path)))
    assert [flat(found) for found in examples(task)] == [
        {name: text.encode() for name, text in row.items()}
    ]
