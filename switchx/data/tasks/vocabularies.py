"""Text to token ids and back, in plain Python: what generation and reports need of a vocabulary.

The pipelines tokenise inside TensorFlow with seqio's classes; the ids here are the same.
"""

import abc
import hashlib
import re
from collections.abc import Iterable

from switchx.data.tasks.ids import PAD_ID, Ids

EXTRA_IDS = 100  # sentinels added to a vocabulary that brings none
_SENTINEL = re.compile(r"<extra_id_(\d+)>")


class Vocabulary(abc.ABC):
    """Token ids of a vocabulary.

    Attributes:
      ids: its numbers.
      digest: SHA-256 of what defines the vocabulary, in hexadecimal.
    """

    ids: Ids
    digest: str

    @property
    def size(self) -> int:
        """Number of ids, sentinels included, not padded to any multiple."""
        return self.ids.size

    @property
    def sentinels(self) -> int:
        """How many of them are sentinels."""
        return self.ids.sentinels.count

    @property
    def pad_id(self) -> int:
        """Padding, in every array."""
        return PAD_ID

    @property
    def eos_id(self) -> int:
        """End of sequence; -1 where there is none."""
        return self.ids.eos

    def sentinel_id(self, index: int) -> int:
        """The id of <extra_id_index>."""
        return self.ids.sentinels.id(index)

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, no end of sequence added; no text becomes a sentinel."""

    @abc.abstractmethod
    def encode_blanks(self, text: str) -> list[int]:
        """Returns the ids of a text in which '<extra_id_3>' is that sentinel."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids up to the first end of sequence; sentinels as <extra_id_0>."""
        kept = []
        for token in map(int, ids):
            if token == self.eos_id:
                break
            if token != self.pad_id:
                kept.append(token)
        return self._decode(kept)

    def piece(self, token: int) -> str:
        """What one token adds to a text, a space before it included; of a control id its name."""
        if token in (self.pad_id, self.eos_id):
            return "<pad>" if token == self.pad_id else "</s>"
        return self._piece(token)

    def _piece(self, token: int) -> str:
        return self._decode([token])

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Text of ids without pad or end of sequence; an id past the size is unknown text."""


class Bytes(Vocabulary):
    """The 256 bytes of UTF-8 as ids 3 to 258, after pad, end of sequence and unknown."""

    _FIRST = 3

    def __init__(self, extra_ids: int = EXTRA_IDS) -> None:
        self.ids = Ids.as_t5(self._FIRST + 256 + extra_ids, extra_ids)
        self.digest = hashlib.sha256(f"bytes with {extra_ids} sentinels".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return [byte + self._FIRST for byte in text.encode()]

    def encode_blanks(self, text: str) -> list[int]:
        ids: list[int] = []
        end = 0
        for match in _SENTINEL.finditer(text):
            if int(match[1]) < self.sentinels:
                ids += self.encode(text[end : match.start()])
                ids.append(self.sentinel_id(int(match[1])))
                end = match.end()
        return ids + self.encode(text[end:])

    def _decode(self, ids: list[int]) -> str:
        return b"".join(map(self._rendered, ids)).decode(errors="replace")

    def _rendered(self, token: int) -> bytes:
        if self._FIRST <= token < self._FIRST + 256:
            return bytes([token - self._FIRST])
        if self._FIRST + 256 <= token < self.size:
            return f"<extra_id_{self.size - 1 - token}>".encode()
        return "\N{REPLACEMENT CHARACTER}".encode()
