"""T5's span corruption in NumPy: a row's spans are a function of its key alone.

Raffel et al. 2020, section 3.1.4 and figure 2, as t5.data.preprocessors.span_corruption has it;
the difference is where the random numbers come from.
"""

import dataclasses

import numpy as np

from switchx.data.prepared import counter_random


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
    """How rows are corrupted.

    Attributes:
      density: share of the tokens that are taken out.
      mean_span: tokens in a span, on average.
      first_sentinel: the id that stands for a row's first span.
      step: from a sentinel to the next; T5's count down.
    """

    density: float
    mean_span: float
    first_sentinel: int
    step: int = -1

    def counts(self, length: int) -> tuple[int, int]:
        """Tokens taken out of a row of `length`, and in how many spans."""
        # In float32, and half to even, as TensorFlow computes them.
        wanted = int(np.round(np.float32(length) * np.float32(self.density)))
        noise = min(max(wanted, 1), length - 1)
        spans = int(np.round(np.float32(noise) / np.float32(self.mean_span)))
        return noise, max(spans, 1)

    def corrupt(self, token_RN: np.ndarray, key_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one length, corrupted: (inputs [R, I], targets [R, T]) without end of sequence.

        In the inputs a sentinel stands for each span; the targets have each sentinel with what it
        stands for.

        Args:
          token_RN: int32, N of at least 1.
          key_R: uint64.
        """
        noise_RN = self.noise_mask(key_R, token_RN.shape[1])
        return self.without(token_RN, noise_RN), self.without(token_RN, ~noise_RN)

    def noise_mask(self, key_R: np.ndarray, length: int) -> np.ndarray:
        """bool [R, length], True for what is taken out. Every mask with `counts` is as likely."""
        room = max(length, 2)  # a single token stays: T5 masks rows of two and cuts
        noise, spans = self.counts(room)
        kept_RS = _segment_lengths(counter_random.key_of(0, key_R), room - noise, spans)
        taken_RS = _segment_lengths(counter_random.key_of(1, key_R), noise, spans)
        return self.spans_of(kept_RS, taken_RS)[:, :length]

    @staticmethod
    def spans_of(kept_RS: np.ndarray, taken_RS: np.ndarray) -> np.ndarray:
        """bool [R, N], True in every second span: the lengths of those kept and taken in turn."""
        ends_RS2 = np.cumsum(
            np.stack([kept_RS, taken_RS], axis=2).reshape(len(kept_RS), -1), axis=1
        )
        begins_RN = np.zeros((len(kept_RS), ends_RS2[0, -1]), np.int8)
        np.put_along_axis(begins_RN, ends_RS2[:, :-1], 1, axis=1)
        return (np.cumsum(begins_RN, axis=1, dtype=np.int32) & 1).astype(bool)

    def without(self, token_RN: np.ndarray, gone_RN: np.ndarray) -> np.ndarray:
        """The rows with a sentinel for each run of `gone`; all rows must lose as many alike."""
        begins_RN = gone_RN.copy()
        begins_RN[:, 1:] &= ~gone_RN[:, :-1]
        number_RN = np.cumsum(begins_RN, axis=1, dtype=np.int32) - 1
        sentinel_RN = self.first_sentinel + self.step * number_RN
        filled_RN = np.where(begins_RN, sentinel_RN, token_RN)
        return filled_RN[begins_RN | ~gone_RN].reshape(len(token_RN), -1)


def _segment_lengths(key_R: np.ndarray, items: int, segments: int) -> np.ndarray:
    """int64 [R, segments]: `items` cut at random into non-empty parts, each way as likely."""
    if segments == 1:
        return np.full((len(key_R), 1), items)
    # The cuts are the places of the smallest of as many random numbers as there are places.
    score_RC = counter_random.bits(key_R, items - 1)
    cut_RC = np.argpartition(score_RC, segments - 2, axis=1)[:, : segments - 1]
    cut_RC = np.sort(cut_RC, axis=1) + 1
    return np.diff(cut_RC, axis=1, prepend=0, append=items)
