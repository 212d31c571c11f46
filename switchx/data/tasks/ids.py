"""The numbers of a vocabulary: what its end of sequence, its padding and its sentinels are.

In every array padding is 0, and so is the token that a decoder begins with, as T5 has it. A
SentencePiece file may have its padding elsewhere, and at 0 a piece that text makes: the two then
change places wherever text, tokens or rows of an embedding come in or go out (`Ids.exchanged`), and
all between them need know nothing of it.
"""

import dataclasses

PAD_ID = 0  # of every array; also the decoder's start


@dataclasses.dataclass(frozen=True)
class Sentinels:
    """The ids of <extra_id_0>, <extra_id_1>, ...: `count` of them from `first` on, each `step`
    (-1 or 1) behind the last. T5's first is a vocabulary's last id, and the others count down."""

    first: int
    step: int
    count: int

    @property
    def row(self) -> tuple[int, int]:
        """Where they begin, and how they go on."""
        return self.first, self.step

    def id(self, index: int) -> int:
        """The id of <extra_id_index>, which need not be there."""
        return self.first + self.step * index


@dataclasses.dataclass(frozen=True)
class Ids:
    """What a vocabulary's ids are, as arrays have them.

    Attributes:
      size: number of ids, sentinels included, not padded to any multiple.
      eos: end of sequence; -1 where there is none.
      unknown: of text that has no piece; -1 where there is none.
      sentinels: see Sentinels.
      file_pad: padding's id in the vocabulary's file, whose piece of id 0 has this id here.
    """

    size: int
    eos: int
    unknown: int
    sentinels: Sentinels
    file_pad: int = PAD_ID

    @classmethod
    def as_t5(cls, size: int, sentinels: int, eos: int = 1, unknown: int = 2) -> "Ids":
        """Padding 0, and the last `sentinels` ids sentinels."""
        return cls(size, eos, unknown, Sentinels(size - 1, -1, sentinels))

    @property
    def is_t5s(self) -> bool:
        """Whether padding and sentinels are where T5's are."""
        return (self.file_pad, *self.sentinels.row) == (PAD_ID, self.size - 1, -1)

    def exchanged(self, token: int) -> int:
        """The id here of an id of the file, and the other way round."""
        return {PAD_ID: self.file_pad, self.file_pad: PAD_ID}.get(token, token)
