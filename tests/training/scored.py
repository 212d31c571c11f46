"""A task whose metrics are plain sums over what the tiny model of `helpers` answers and scores."""

import functools

import numpy as np

from switchx.data.grades import Grade
from switchx.evaluation import Evaluator, Scorer
from switchx.inference import DecodingConfig
from tests.training.helpers import TARGETS, VOCAB, eval_batches

EOS = 1


class Sums:
    """Rows of different lengths, more than fit into whole batches."""

    name, needs = "sums", {"predict", "score", "answer_scores"}
    long_targets = 2

    def __init__(self, rows=11):
        rng = np.random.default_rng(7)
        lengths = rng.integers(2, TARGETS + 1, (2, rows))
        self.inputs, self.targets = (
            [[*rng.integers(2, VOCAB, length - 1).tolist(), EOS] for length in of] for of in lengths
        )
        self.given = None  # what was graded last

    def grade(self, answers, scores, answer_scores):
        self.given = answers, scores, answer_scores
        values = {"tokens": sum(map(sum, answers)), "nats": -sum(scores)}
        lines = [
            {"inputs": row, "output": of} for row, of in zip(self.inputs, answers, strict=True)
        ]
        return Grade(values, ["another raised ValueError: no"], lambda: lines)


def scorer(setup, say, tasks, model_dir=None, batch_size=8, **choices):
    decoding = DecodingConfig(TARGETS, batch_size=batch_size, **choices)
    return Scorer(setup, tasks, decoding, EOS, {"other": "has no metrics"}, model_dir, say)


def evaluation(model_dir, setup):
    """What `train` evaluates with, and scores."""
    make = functools.partial(scorer, tasks=[Sums()], model_dir=str(model_dir))
    return Evaluator(setup, eval_batches, make_scorer=make)
