"""Text to token ids and back, in plain Python: what generation and reports need of a vocabulary.

The pipelines tokenise inside TensorFlow with seqio's classes; the ids here are the same.
"""

import abc
import hashlib
import itertools
import re
from collections.abc import Iterable
from typing import Any

from switchx.errors import UserError

PAD_ID = 0
EXTRA_IDS = 100  # sentinels added to a vocabulary that brings none
_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_SENTINEL_PIECE = re.compile(r"▁?<extra_id_\d+>")


class Vocabulary(abc.ABC):
    """Token ids of a vocabulary with sentinels at its end, the first sentinel last.

    Attributes:
      size: number of ids, sentinels included, not padded to any multiple.
      sentinels: how many of them are sentinels.
      digest: SHA-256 of what defines the vocabulary, in hexadecimal.
    """

    size: int
    sentinels: int
    digest: str
    pad_id: int = PAD_ID
    eos_id: int = 1

    def sentinel_id(self, index: int) -> int:
        """The id of <extra_id_index>."""
        return self.size - 1 - index

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

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Text of ids without pad or end of sequence; an id past the size is unknown text."""


class SentencePieces(Vocabulary):
    """A SentencePiece model, with sentinels appended where it has none of its own.

    Attributes:
      added_sentinels: how many were appended.
    """

    def __init__(self, model: bytes, extra_ids: int | None = None, name: str = "") -> None:
        """Raises UserError where the bytes are no model, or its special ids are not T5's."""
        proto = parse_model(model, name)
        self.added_sentinels = sentinels_to_add(proto) if extra_ids is None else extra_ids
        for i in reversed(range(self.added_sentinels)):
            kind = proto.SentencePiece.USER_DEFINED
            proto.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=kind)
        self._with_blanks = _processor(proto, name)
        self._of_text = _processor(text_only(proto), name)
        self.size = self._with_blanks.get_piece_size()
        self.sentinels = _sentinels_at_the_end(proto)
        self.eos_id = proto.trainer_spec.eos_id
        self.digest = hashlib.sha256(model).hexdigest()

    def encode(self, text: str) -> list[int]:
        return self._of_text.encode(text)

    def encode_blanks(self, text: str) -> list[int]:
        # The pieces begin with a space: without one, '<extra_id_0>' is seven ordinary pieces.
        return self._with_blanks.encode(re.sub(r"\s*(<extra_id_\d+>)", r" \1", text))

    def _decode(self, ids: list[int]) -> str:
        unknown = self._with_blanks.unk_id()
        return self._with_blanks.decode([i if 0 <= i < self.size else unknown for i in ids])


class Bytes(Vocabulary):
    """The 256 bytes of UTF-8 as ids 3 to 258, after pad, end of sequence and unknown."""

    _FIRST = 3

    def __init__(self, extra_ids: int = EXTRA_IDS) -> None:
        self.sentinels = extra_ids
        self.size = self._FIRST + 256 + extra_ids
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


def sentinels_to_add(proto: Any) -> int:
    """How many sentinels a model proto still needs: none where it ends with its own."""
    return 0 if _sentinels_at_the_end(proto) else EXTRA_IDS


def _sentinels_at_the_end(proto: Any) -> int:
    """How many of the last ids are <extra_id_0>, <extra_id_1>, ... backwards from the end.

    Those elsewhere are no sentinels: an objective counts down from the last id.
    """
    pieces = reversed(proto.pieces)
    counted = itertools.takewhile(
        lambda numbered: _is_sentinel(numbered[1]) and f"_{numbered[0]}>" in numbered[1].piece,
        enumerate(pieces),
    )
    return sum(1 for _ in counted)


def text_only(proto: Any) -> Any:
    """A copy of a model proto that makes no sentinel and no control id of any text.

    Its pieces keep their ids: a document that holds '<extra_id_0>' gets the pieces of these
    twelve characters.
    """
    copy = type(proto).FromString(proto.SerializeToString())
    for number, piece in enumerate(copy.pieces):
        is_control = number in (PAD_ID, copy.trainer_spec.eos_id)
        if piece.type == piece.USER_DEFINED and (is_control or _is_sentinel(piece)):
            piece.type = piece.UNUSED
    return copy


def parse_model(model: bytes, name: str) -> Any:
    """Returns the proto of a SentencePiece model whose special ids are those seqio counts on.

    Raises:
      UserError: the bytes are no model, or pad is not 0, or there is no end of sequence.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto_class: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
    try:
        proto = proto_class.FromString(model)
    except DecodeError as error:
        raise _no_model(name, str(error)) from error
    if not proto.pieces:
        raise _no_model(name, "it holds no piece")
    trained = proto.trainer_spec
    if trained.pad_id != PAD_ID or trained.eos_id < 1 or trained.unk_id < 1:
        raise UserError(
            f"VOCABULARY={name!r} has pad id {trained.pad_id}, end-of-sequence id "
            f"{trained.eos_id} and unknown id {trained.unk_id}: give a model trained with "
            "pad_id=0, eos_id=1, unk_id=2 and bos_id=-1."
        )
    return proto


def _processor(proto: Any, name: str) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    except RuntimeError as error:
        raise _no_model(name, str(error).partition("INTERNAL: ")[2]) from error


def _is_sentinel(piece: Any) -> bool:
    return bool(_SENTINEL_PIECE.fullmatch(str(piece.piece)))  # bytes where it is no text


def _no_model(name: str, why: str) -> UserError:
    return UserError(
        f"VOCABULARY={name!r} is not a SentencePiece model ({why[:100]}): give 'default', 't5', "
        "'mt5', 'python_docs', 'python_code', 'python_code_1000', 'bytes' or the path of a "
        ".model file."
    )
