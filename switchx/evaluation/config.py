"""What the user chose about the tasks' own scores, checked where it is made."""

import dataclasses
from typing import TYPE_CHECKING

from switchx.checks import at_least, from_zero, is_whole, one_of
from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.inference import DecodingConfig

METHODS = ("greedy", "beam", "sample")  # those of `switchx.inference.DecodingConfig`


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Whether and how tasks are scored by their own metrics.

    Attributes:
      during_training: whether each evaluation of a run scores the tasks that have metrics too
        (macro EVAL_SCORES).
      examples: so many of each task's validation split are answered, the first ones; None is all
        (macro SCORE_EXAMPLES).
      method: how answers are found: "greedy", "beam" or "sample" (macro DECODING_METHOD).
      num_beams: hypotheses kept, for "beam" (macro NUM_BEAMS).
      length_penalty: alpha of `switchx.inference.beam_search`'s score, for "beam"
        (macro LENGTH_PENALTY).
      temperature, top_k, top_p, seed: for "sample": see `switchx.inference.Sampling`.
    """

    during_training: bool = True
    examples: int | None = None
    method: str = "greedy"
    num_beams: int = 4
    length_penalty: float = 0.6
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.examples is not None and not (is_whole(self.examples) and self.examples >= 1):
            raise UserError(
                f"SCORE_EXAMPLES={self.examples!r} must be a whole number of at least 1, or None "
                "for all."
            )
        one_of("DECODING_METHOD", self.method, METHODS)
        at_least("NUM_BEAMS", self.num_beams, 1)
        from_zero("LENGTH_PENALTY", self.length_penalty)
        self._check_sampling()

    def _check_sampling(self) -> None:
        for name, good, accepted in (
            ("temperature", 0 <= self.temperature < float("inf"), "from 0 up"),
            ("top_k", 0 <= self.top_k < 2**31, f"from 0 (all tokens) to {2**31 - 1}"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", 0 <= self.seed < 2**32, f"from 0 to {2**32 - 1}"),
        ):
            if not good:
                raise UserError(f"ScoreConfig.{name}={getattr(self, name)!r} must be {accepted}.")

    def decoding(self, length: int, batch_size: int) -> "DecodingConfig":
        """The same for answers of at most `length` tokens, so many rows at a time.

        Raises:
          UserError: a setting of sampling is out of range.
        """
        from switchx.inference import DecodingConfig, Sampling

        sampling = Sampling(self.temperature, self.top_k, self.top_p)
        return DecodingConfig(
            length,
            self.method,
            sampling,
            self.seed,
            self.num_beams,
            self.length_penalty,
            batch_size,
        )
