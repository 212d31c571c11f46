"""What a user's MIXTURE_OR_TASK_MODULE looks like; the tests name it."""

import functools

import seqio
import tensorflow as tf
from t5.data import preprocessors

TEXTS = [f"number {i} is followed by number {i + 1}" for i in range(50)]


def _texts(split, shuffle_files, seed=None):
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS if split == "train" else TEXTS[:7])
    return dataset.map(lambda text: {"inputs": text, "targets": tf.strings.upper(text)})


def _add(
    name,
    dataset_fn=_texts,
    splits=("train", "validation"),
    features=None,
    steps=(),
    metrics=(),
    examples=None,
):
    feature = seqio.Feature(seqio.ByteVocabulary(100))
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset_fn, splits, num_input_examples=examples),
        preprocessors=[*steps, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=features or {"inputs": feature, "targets": feature},
        metric_fns=list(metrics),
    )


def _nothing(split, shuffle_files, seed=None):
    return _texts(split, shuffle_files).take(0)


def _numbered(word, count):
    """Examples that say which task they are of, and which of it."""

    def texts(split, shuffle_files, seed=None):
        dataset = tf.data.Dataset.from_tensor_slices([f"{word} {i}" for i in range(count)])
        return dataset.map(lambda text: {"inputs": text, "targets": text})

    return texts


def _with_gaps(split, shuffle_files, seed=None):
    """Every other example has no token on one side or on both."""
    inputs = ["one", "", "two", "no target", "three", ""]
    targets = ["ONE", "NO INPUT", "TWO", "", "THREE", ""]
    return tf.data.Dataset.from_tensor_slices({"inputs": inputs, "targets": targets})


def _needs_autograph(dataset):
    def shorten(row):
        if tf.strings.length(row["inputs"]) > 10:  # a branch on a tensor
            row["inputs"] = tf.strings.substr(row["inputs"], 0, 10)
        return row

    return dataset.map(shorten)


def accuracy(targets, predictions):
    return {"accuracy": sum(map(str.__eq__, targets, predictions)) / len(targets)}


_add("own_shouting")
_add("own_scored", metrics=[accuracy])
_add("own_many", _numbered("many", 64), examples={"train": 64, "validation": 64})
_add("own_few", _numbered("few", 4), examples={"train": 4, "validation": 4})
_add("own_branching", steps=[_needs_autograph])
_add("own_without_validation", splits=("train",))
_add("own_only_validation", splits=("validation",))
_add("own_empty", dataset_fn=_nothing)
_add(
    "own_language_model",
    features={"targets": seqio.Feature(seqio.ByteVocabulary(100))},
)
_add(
    "own_two_vocabularies",
    features={
        "inputs": seqio.Feature(seqio.ByteVocabulary(100)),
        "targets": seqio.Feature(seqio.ByteVocabulary(50)),
    },
)
_add(
    "own_with_gaps",
    dataset_fn=_with_gaps,
    features={
        name: seqio.Feature(seqio.ByteVocabulary(100), add_eos=False)
        for name in ("inputs", "targets")
    },
)
seqio.MixtureRegistry.add("own_mixture", ["own_shouting", "own_branching"], default_rate=1.0)
seqio.MixtureRegistry.add(
    "own_uneven",
    ["own_branching", "own_only_validation", "own_without_validation"],
    default_rate=1.0,
)
seqio.MixtureRegistry.add("own_half_empty", ["own_shouting", "own_empty"], default_rate=1.0)
seqio.MixtureRegistry.add("own_with_docs", [("python_docs_span_corruption", 1.0)])
seqio.TaskRegistry.add(
    "own_longer_spans",
    source=seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: _texts(split, shuffle_files),
        ("train", "validation"),
    ),
    preprocessors=[
        seqio.preprocessors.tokenize,
        functools.partial(preprocessors.span_corruption, noise_density=0.5),
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
        name: seqio.Feature(seqio.ByteVocabulary(100)) for name in ("inputs", "targets")
    },
)


def _raising(dataset):
    raise OSError(5, "in a step of the user's")


_add("own_raising", steps=[_raising])
