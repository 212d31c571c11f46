"""What the user chose about decoding, checked where it is made."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from switchx.checks import above_zero, from_zero, is_whole
from switchx.errors import UserError

METHODS = ("greedy", "sample", "beam")
MOST = 2**20  # tokens, hypotheses and rows at a time


# Which method a choice belongs to: with another it would do nothing, so it is an error.
ONLY = {
    "temperature": "sample",
    "top_k": "sample",
    "top_p": "sample",
    "seed": "sample",
    "num_beams": "beam",
    "length_penalty": "beam",
}


def check_used(method: str, choices: Mapping[str, Any]) -> None:
    """Raises UserError for a choice that there is not, or that the method does not use."""
    there = [field.name for cls in (DecodingConfig, Sampling) for field in dataclasses.fields(cls)]
    there.remove("sampling")
    for name, value in choices.items():
        if name not in there:
            raise UserError(f"{name}={value!r} is none of {', '.join(there)}.")
        if ONLY.get(name, method) != method:
            raise UserError(
                f"--{name}={value} has no effect with --method={method}: leave it out or give "
                f"--method={ONLY[name]}."
            )


def _check(name: str, value: Any, good: bool, accepted: str) -> None:
    if not good:
        raise UserError(f"--{name}={value} must be {accepted}.")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Which tokens are drawn from, and how boldly.

    Attributes:
      temperature: divides the logits; 0 takes the most probable token (--temperature).
      top_k: only so many most probable tokens are drawn from; 0 is all (--top_k).
      top_p: only the fewest most probable tokens that together reach this probability, after
        top_k, are drawn from; 1 is all (nucleus sampling, --top_p).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        from_zero("--temperature", self.temperature)
        above_zero("--top_p", self.top_p)
        _check("top_k", self.top_k, is_whole(self.top_k), "a whole number")
        _check("top_k", self.top_k, 0 <= self.top_k < 2**31, f"from 0 (all tokens) to {2**31 - 1}")
        _check("top_p", self.top_p, self.top_p <= 1, "above 0 and at most 1")


GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How answers are found.

    Attributes:
      length: most tokens of an answer, its end of sequence included (--max_length).
      method: "greedy", "sample" or "beam" (--method).
      sampling: for "sample".
      seed: for "sample" (--seed).
      num_beams: hypotheses kept, for "beam" (--num_beams).
      length_penalty: alpha of beam_search's score, for "beam" (--length_penalty).
      batch_size: rows decoded at a time (--batch_size).
    """

    length: int
    method: str = "greedy"
    sampling: Sampling = Sampling()
    seed: int = 0
    num_beams: int = 4
    length_penalty: float = 0.6
    batch_size: int = 8

    def __post_init__(self) -> None:
        _check("method", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}")
        for name in ("seed", "length", "num_beams", "batch_size"):
            shown = "max_length" if name == "length" else name
            _check(shown, getattr(self, name), is_whole(getattr(self, name)), "a whole number")
        _check("seed", self.seed, 0 <= self.seed < 2**32, f"from 0 to {2**32 - 1}")
        from_zero("--length_penalty", self.length_penalty)
        for name, value in (
            ("max_length", self.length),
            ("num_beams", self.num_beams),
            ("batch_size", self.batch_size),
        ):
            _check(name, value, value >= 1, "at least 1")
            _check(name, value, value <= MOST, f"at most {MOST}")
