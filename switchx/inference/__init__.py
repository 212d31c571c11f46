"""How does a trained model answer? Decoding, scoring, filled blanks.

Array names follow the legend of switchx.model, where M is the encoder's length and L the
answer's. Here, besides: P beams, K candidates for them, C the vocabulary sorted by probability.
"""

from switchx.inference.beam import beam_search
from switchx.inference.blanks import Answer, answer, to_tokens
from switchx.inference.config import DecodingConfig, Sampling
from switchx.inference.decoding import greedy, sample
from switchx.inference.masks import in_place, predict_masks
from switchx.inference.prediction import fill_blanks, predict
from switchx.inference.routing import Choices, Routing, routing
from switchx.inference.scoring import logits, score, score_rows

__all__ = [
    "Answer",
    "Choices",
    "DecodingConfig",
    "Routing",
    "Sampling",
    "answer",
    "beam_search",
    "fill_blanks",
    "greedy",
    "in_place",
    "logits",
    "predict",
    "predict_masks",
    "routing",
    "sample",
    "score",
    "score_rows",
    "to_tokens",
]
