"""The paper's tasks that the package t5 has not, as seqio tasks.

Formats are those under which each task is published: CNN/DailyMail's in t5 for XSum, SPoT's for
ANLI and WinoGrande (the set's name, then each field's name and text), UnifiedQA's for ARC (the
question and its lettered options, in lower case), Roberts et al. (2020) for closed-book questions.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from switchx.data.config import DataConfig
from switchx.data.tasks import names, t5_metrics, task_files

Example = Mapping[str, Any]
OWN: set[str] = set()  # names of those that are registered
_UNKNOWN = "<unk>"  # the target of an example without a label, as t5 has it
_NLI = ("entailment", "neutral", "contradiction")


def register(vocabulary: seqio.Vocabulary, config: DataConfig) -> None:
    """Registers them with seqio, in the place of those of an earlier call."""
    add = functools.partial(_add, vocabulary)
    accuracy = t5_metrics.predicted("accuracy")
    add("xsum_v110", "xsum:1.1.0", [summary], t5_metrics.predicted("rouge"))
    add("anli_r3_v010", "anli/r3:0.1.0", [entailment], accuracy)
    for name, (dataset, make, train) in _MULTIPLE_CHOICE.items():
        splits = {"validation": "validation", "test": "test"}
        add(name, dataset, [make], accuracy, splits={"train": train, **splits})
        rank = t5_metrics.rank_classification, t5_metrics.ranked_answer
        add(f"{name}_score_eval", dataset, [make, _each_choice], *rank, splits=splits)
        _mixture(f"{name}_ranked", {name: 1.0, f"{name}_score_eval": 0.0})
    for name, (dataset, make, metric, parts) in _CLOSED_BOOK.items():
        add(name, dataset, [make], t5_metrics.of_answers(metric), t5_metrics.all_answers, parts)
    _mixture("closed_book_qa", _CLOSED_BOOK_SIZES)
    if config.task_files is not None:
        metrics = [t5_metrics.of_answers(metric) for metric in config.task_metrics]
        add(names.TASK_FILES, task_files.own_source(config), [own], metrics, t5_metrics.all_answers)


@seqio.map_over_dataset
def summary(x: Example) -> Example:
    """An article and its summary of one sentence."""
    return {"inputs": _text("summarize:", x["document"]), "targets": x["summary"]}


@seqio.map_over_dataset
def entailment(x: Example) -> Example:
    """What follows from a context for a hypothesis: a word of three."""
    inputs = _text("anli_r3 hypothesis:", x["hypothesis"], "context:", x["context"])
    return {"inputs": inputs, "targets": _chosen(list(_NLI), x["label"])}


@seqio.map_over_dataset
def winogrande(x: Example) -> Example:
    """A sentence with a gap and two words for it; the target is one of these."""
    options = tf.stack([x["option1"], x["option2"]])
    fields = ("sentence:", x["sentence"], "option1:", options[0], "option2:", options[1])
    return {
        "inputs": _text("winogrande", *fields),
        "targets": _chosen(options, x["label"]),
        "choices": options,
        "right": tf.range(2, dtype=tf.int64) == x["label"],
    }


@seqio.map_over_dataset
def arc(x: Example) -> Example:
    """A question of a science exam, with up to five options; the target is one of these."""
    options = tf.strings.lower(x["choices"]["text"])
    count = tf.size(options)
    letters = tf.gather(["(a)", "(b)", "(c)", "(d)", "(e)"], tf.range(count))
    listed = tf.strings.reduce_join(tf.strings.join([letters, options], " "), separator=" ")
    right = x["choices"]["label"] == x["answerKey"]
    number = tf.where(tf.reduce_any(right), tf.argmax(right), -1)
    return {
        "inputs": _text(tf.strings.lower(x["question"]), r"\n", listed),
        "targets": _chosen(options, number),
        "choices": options,
        "right": right,
    }


@seqio.map_over_dataset
def own(x: Example) -> Example:
    """Inputs and targets as TASK_FIELDS made them; of several targets, the first is learned."""
    return {"inputs": x["inputs"], "targets": x["targets"][0], "answers": x["targets"]}


def _question(prefix: str, answers: Callable[[Example], Any]) -> Any:
    """A question alone, and all its answers, of which the first is the target."""

    @seqio.map_over_dataset
    def question(x: Example) -> Example:
        found = answers(x)
        return {"inputs": _text(prefix, x["question"]), "targets": found[0], "answers": found}

    return question


def _trivia_answers(x: Example) -> Any:
    """The answer that is asked for, then its other names."""
    return tf.concat([x["answer"]["value"][None], x["answer"]["aliases"]], 0)


# Name: dataset, what makes an example, and which split is the train split.
_MULTIPLE_CHOICE = {
    "winogrande_xl_v120": ("winogrande:1.2.0", winogrande, "train_xl"),
    "arc_easy_v100": ("ai2_arc/ARC-Easy:1.0.0", arc, "train"),
    "arc_challenge_v100": ("ai2_arc/ARC-Challenge:1.0.0", arc, "train"),
}

# Two have no validation split that is not the test split of other work: a part of train is theirs.
_NQ = "natural_questions_open:1.0.0", _question("nq question:", lambda x: x["answer"]), "squad"
_WQ = "web_questions:1.0.0", _question("wq question:", lambda x: x["answers"]), "squad"
_TRIVIA = _question("trivia_qa question:", _trivia_answers)
_CLOSED_BOOK: dict[str, tuple[str, Any, str, Mapping[str, str] | None]] = {
    "natural_questions_open": (
        *_NQ,
        {"train": "train[7830:]", "validation": "train[:7830]", "test": "validation"},
    ),
    "natural_questions_open_test": (*_NQ, {"train": "train", "validation": "validation"}),
    "web_questions_open": (
        *_WQ,
        {"train": "train[10%:]", "validation": "train[:10%]", "test": "test"},
    ),
    "web_questions_open_test": (*_WQ, {"train": "train", "validation": "test"}),
    "trivia_qa_open": ("trivia_qa/unfiltered.nocontext:1.1.0", _TRIVIA, "trivia_qa", None),
}
_CLOSED_BOOK_SIZES = {
    "natural_questions_open": 80_095.0,
    "web_questions_open": 3_400.0,
    "trivia_qa_open": 87_622.0,
}


def _add(
    vocabulary: seqio.Vocabulary,
    name: str,
    source: str | seqio.DataSource,
    steps: Sequence[Callable[..., tf.data.Dataset]],
    metrics: t5_metrics.Metric | Sequence[t5_metrics.Metric],
    post: Any = None,
    splits: Mapping[str, str] | None = None,
) -> None:
    if isinstance(source, str):
        source = seqio.TfdsDataSource(tfds_name=source, splits=dict(splits) if splits else None)
    OWN.add(name)
    if name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
    ending = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim]
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[*steps, *ending],
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=post,
        metric_fns=[metrics] if callable(metrics) else list(metrics),
    )


def _mixture(name: str, rates: Mapping[str, float]) -> None:
    if name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(name)
    seqio.MixtureRegistry.add(name, list(rates.items()))


def _each_choice(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """An example for each option of a question, numbered [question, option]."""
    from t5.data import preprocessors

    return preprocessors.rank_classification(
        dataset,
        inputs_fn=lambda x: tf.fill(tf.shape(x["choices"]), x["inputs"]),
        targets_fn=lambda x: x["choices"],
        is_correct_fn=lambda x: x["right"],
    )


def _text(*parts: Any) -> tf.Tensor:
    return tf.strings.join(parts, separator=" ")


def _chosen(texts: Any, number: tf.Tensor) -> tf.Tensor:
    """The text of a number; that of no number is unknown."""
    return tf.where(number < 0, _UNKNOWN, tf.gather(texts, tf.maximum(number, 0)))


def register_glue_v200() -> None:
    """t5's GLUE tasks over GLUE 2.0.0, which TFDS can make; t5's read 1.0.0, which it cannot."""
    from t5.data import glue_utils

    for old in filter(_is_glue, list(seqio.TaskRegistry.names())):
        of = old.removeprefix("glue_").removesuffix("_v002")
        splits = ["test"] if of == "ax" else None
        source = seqio.TfdsDataSource(tfds_name=f"glue/{of}:2.0.0", splits=splits)
        if _v200(old) not in seqio.TaskRegistry.names():
            task = seqio.TaskRegistry.get(old).replace(name=_v200(old), source=source)
            seqio.TaskRegistry.add_provider(_v200(old), task)
    rates = {_v200(old): rate for old, rate in glue_utils.GLUE_WEIGHT_MAPPING.items()}
    _mixture("glue_v200_proportional", rates)
    _mixture("glue_mnli_and_dev_v200", {name: 1.0 for name in rates if "mnli" in name})


def _is_glue(name: str) -> bool:
    return name.startswith("glue_") and name.endswith("_v002")


def _v200(name: str) -> str:
    return name.removesuffix("_v002") + "_v200"
