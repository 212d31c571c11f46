"""Tasks with metrics of every kind that seqio knows; MIXTURE_OR_TASK_MODULE of the tests."""

import functools

import flax
import numpy as np
import seqio
import tensorflow as tf
from t5.data import postprocessors, preprocessors
from t5.evaluation import metrics

PAIRS = [
    ("two plus two", "four"),
    ("one plus two", "three"),
    ("the capital of France", "Paris"),
    ("a long answer", "on and on and on and on"),
    ("nothing", "-"),
]
INPUTS, TARGETS = ([pair[n] for pair in PAIRS] for n in (0, 1))


def accuracy(targets, predictions):
    return {"accuracy": 100 * sum(map(str.__eq__, targets, predictions)) / len(targets)}


def drawn(targets, predictions):
    """Draws at random, as ROUGE's bootstrap does."""
    return {"drawn": float(np.random.uniform()) + len(predictions)}


def likelihood(targets, scores):
    return {"likelihood": float(np.mean(scores)), "targets": len(targets)}


def confidence(targets, predictions, aux_values):
    pairs = zip(predictions, aux_values["scores"], strict=True)
    return {"confidence": float(np.mean([len(text) * score for text, score in pairs]))}


def raising(targets, predictions):
    raise ZeroDivisionError("nothing to divide by")


def texts(targets, predictions):
    words = {"note": seqio.metrics.Text("no number"), "word": "1", "none": None, "rows": [[1], 2]}
    return {**words, "longest": seqio.metrics.Scalar(7)}


@flax.struct.dataclass
class TokenShare(seqio.metrics.Metric):
    """A clu metric of seqio's newer kind: the share of examples whose first token is right."""

    right: int = 0
    total: int = 0
    model_output_type: seqio.metrics.ModelOutputType = seqio.metrics.ModelOutputType.PREDICTION

    @classmethod
    def empty(cls):
        return cls()

    @classmethod
    def from_model_output(
        cls, inputs, model_output, features, target_field_name="targets", mask=None, indices_2d=None
    ):
        firsts = [int(example[target_field_name][0]) for example in inputs]
        right = sum(int(a == b) for a, b in zip(firsts, model_output[:, 0], strict=True))
        return cls(right=right, total=len(firsts))

    def compute(self):
        return {"first_token": self.right / self.total}


@flax.struct.dataclass
class Perplexed(TokenShare):
    """One that looks into the scores' parts."""

    model_output_type: seqio.metrics.ModelOutputType = (
        seqio.metrics.ModelOutputType.SCORE_WITH_INTERMEDIATES
    )

    @classmethod
    def from_model_output(
        cls, inputs, model_output, features, target_field_name="targets", mask=None, indices_2d=None
    ):
        scores, within = model_output
        (weights,) = within["decoder"]["loss_weights"]
        return cls(right=-float(np.sum(scores)), total=float(np.sum(weights)))

    def compute(self):
        return {"nats_per_token": self.right / self.total}


def _pairs(split, shuffle_files, seed=None):
    return tf.data.Dataset.from_tensor_slices({"inputs": INPUTS, "targets": TARGETS})


def _shouted(text, example=None, is_target=False):
    """A postprocessor that looks at the example."""
    assert "inputs" in example
    return text.upper()


def _add(name, splits=("train", "validation"), **options):
    feature = seqio.Feature(seqio.ByteVocabulary(100))
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(_pairs, splits),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
        **options,
    )


_add("graded_pairs", postprocess_fn=_shouted, metric_fns=[accuracy, drawn, likelihood])
_add(
    "graded_objects",
    metric_objs=[TokenShare.empty(), Perplexed.empty()],
    metric_fns=[confidence, metrics.squad],
)
_add("graded_raising", metric_fns=[raising, texts, accuracy, functools.partial(accuracy)])
_add("graded_not_at_all")
_add("graded_without_validation", splits=("train",), metric_fns=[accuracy])
_add("graded_wrongly", metric_fns=[lambda predictions: {}])


def _choices(split, shuffle_files, seed=None):
    """Two questions, each with two choices, as t5's rank classification has them."""
    rows = {
        "inputs": ["sum of 1 and 1", "capital of Italy"],
        "targets": [["two", "three"], ["Paris", "Rome"]],
        "is_correct": [[True, False], [False, True]],
    }
    return tf.data.Dataset.from_tensor_slices(rows)


_feature = seqio.Feature(seqio.ByteVocabulary(100))
seqio.TaskRegistry.add(
    "graded_ranking",
    source=seqio.FunctionDataSource(_choices, ("train", "validation")),
    preprocessors=[
        functools.partial(
            preprocessors.rank_classification,
            inputs_fn=lambda example: tf.fill([2], example["inputs"]),
            targets_fn=lambda example: example["targets"],
            is_correct_fn=lambda example: example["is_correct"],
        ),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ],
    postprocess_fn=postprocessors.rank_classification,
    output_features={"inputs": _feature, "targets": _feature},
    metric_fns=[functools.partial(metrics.rank_classification, num_classes=2)],
)
seqio.MixtureRegistry.add(
    "graded_mixture",
    [
        "graded_pairs",
        "graded_not_at_all",
        "graded_raising",
        "graded_ranking",
        "graded_without_validation",
    ],
    default_rate=1.0,
)
