"""SentencePiece models as vocabularies, whatever ids they have for what a T5 needs.

An end of sequence must be there. Padding that is not, and sentinels that are not, are added behind
the pieces, padding first; then padding and the piece of id 0 change places (see `ids`).
"""

import hashlib
import itertools
import re
from typing import Any

from switchx.data.tasks.ids import PAD_ID, Ids, Sentinels
from switchx.data.tasks.vocabularies import EXTRA_IDS, Vocabulary
from switchx.errors import UserError

_SENTINEL_PIECE = re.compile(r"▁?<extra_id_(0|[1-9]\d{0,5})>")


class SentencePieces(Vocabulary):
    """A SentencePiece model.

    Attributes:
      file: the bytes of the model as it came.
      processor: SentencePiece's, of the model with all that was added, in the order of our ids.
      with_blanks: the bytes of that model.
      of_text: the same model, which makes no sentinel of any text.
      added_sentinels: how many were added.
    """

    def __init__(self, model: bytes, extra_ids: int | None = None, name: str = "") -> None:
        """Raises UserError where the bytes are no model, or one without an end of sequence.

        Args:
          extra_ids: sentinels that are added; None adds them where the model has none.
        """
        self.file = model
        proto = parse_model(model, name)
        file_pad = _padding(proto)
        self.added_sentinels = _num_to_add(proto) if extra_ids is None else extra_ids
        _add_sentinels(proto, self.added_sentinels)
        _exchange(proto, file_pad)
        sentinels = _sentinels(proto)
        _name_sentinels(proto, sentinels)
        self.with_blanks: bytes = proto.SerializeToString()
        self.processor = _processor(self.with_blanks, name)
        _forget_sentinels(proto)
        self.of_text: bytes = proto.SerializeToString()
        self._text = _processor(self.of_text, name)
        eos, unknown = proto.trainer_spec.eos_id, self._text.unk_id()
        self.ids = Ids(len(proto.pieces), eos, unknown, sentinels, file_pad)
        # Where ids are not T5's they are part of what the vocabulary is.
        layout = b"" if self.ids.is_t5s else repr(self.ids).encode()
        self.digest = hashlib.sha256(model + layout).hexdigest()

    def encode(self, text: str) -> list[int]:
        return list(self._text.encode(text))

    def encode_blanks(self, text: str) -> list[int]:
        # The pieces begin with a space: without one, '<extra_id_0>' is seven ordinary pieces.
        return list(self.processor.encode(re.sub(r"\s*(<extra_id_\d+>)", r" \1", text)))

    def _piece(self, token: int) -> str:
        known = token if 0 <= token < self.size else self.ids.unknown
        piece = str(self.processor.id_to_piece(known))
        if _SENTINEL_PIECE.fullmatch(piece):
            return piece.removeprefix("▁")
        if self.processor.is_byte(known) and piece < "<0x80>":
            return chr(int(piece[1:-1], 16))
        return piece.replace("▁", " ")

    def _decode(self, ids: list[int]) -> str:
        known = [i if 0 <= i < self.size else self.ids.unknown for i in ids]
        return str(self.processor.decode(known))


def parse_model(model: bytes, name: str = "") -> Any:
    """Returns the proto of a SentencePiece model that has an end of sequence.

    Raises:
      UserError: the bytes are no model, or there is no end of sequence.
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
    if _control_id(proto, proto.trainer_spec.eos_piece) < 0:
        raise UserError(
            f"VOCABULARY={name!r} has no end of sequence, a piece "
            f"{proto.trainer_spec.eos_piece!r}: train one that has, as `switchx data vocabulary` "
            "does, or SentencePiece unless eos_id=-1 is given."
        )
    return proto


def _control_id(proto: Any, name: str) -> int:
    """The id of a piece that stands for no text, -1 where there is none; text no longer makes it.

    SentencePiece finds it by its name too. As a user-defined symbol its letters would make it.
    """
    kinds = (proto.SentencePiece.CONTROL, proto.SentencePiece.USER_DEFINED)
    for number, piece in enumerate(proto.pieces):
        if piece.piece == name and piece.type in kinds:
            piece.type = piece.CONTROL
            return number
    return -1


def _padding(proto: Any) -> int:
    """The id of padding, added behind the pieces where the model has none."""
    found = _control_id(proto, proto.trainer_spec.pad_piece)
    if found < 0:
        kind = proto.SentencePiece.CONTROL
        proto.pieces.add(piece=proto.trainer_spec.pad_piece, score=0.0, type=kind)
        return len(proto.pieces) - 1
    return found


def _exchange(proto: Any, file_pad: int) -> None:
    """Padding and the piece of id 0 change places; the specification says where they are then."""
    if file_pad != PAD_ID:
        other = type(proto.pieces[0]).FromString(proto.pieces[PAD_ID].SerializeToString())
        proto.pieces[PAD_ID].CopyFrom(proto.pieces[file_pad])
        proto.pieces[file_pad].CopyFrom(other)
    trained = proto.trainer_spec
    trained.pad_id = PAD_ID
    trained.eos_id = _control_id(proto, trained.eos_piece)
    unknown = (n for n, piece in enumerate(proto.pieces) if piece.type == piece.UNKNOWN)
    trained.unk_id = next(unknown, -1)
    trained.bos_id = _control_id(proto, trained.bos_piece) if trained.bos_id >= 0 else -1
    proto.trainer_spec.vocab_size = len(proto.pieces)


def _num_to_add(proto: Any) -> int:
    return 0 if _sentinels(proto).count else EXTRA_IDS


def _add_sentinels(proto: Any, count: int) -> None:
    for i in reversed(range(count)):
        kind = proto.SentencePiece.USER_DEFINED
        proto.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=kind)


def _sentinels(proto: Any) -> Sentinels:
    """<extra_id_0> and those that follow it, upwards or downwards, without a gap."""
    numbered = {
        int(found[1]): number
        for number, piece in enumerate(proto.pieces)
        if (found := _sentinel_name(piece))
    }
    if 0 not in numbered:
        return Sentinels(len(proto.pieces) - 1, -1, 0)
    first = numbered[0]
    step = 1 if numbered.get(1) == first + 1 else -1
    follow = itertools.takewhile(lambda i: numbered.get(i) == first + step * i, itertools.count())
    return Sentinels(first, step, sum(1 for _ in follow))


def _sentinel_name(piece: Any) -> re.Match[str] | None:
    return _SENTINEL_PIECE.fullmatch(str(piece.piece))  # bytes where it is no text


def _name_sentinels(proto: Any, sentinels: Sentinels) -> None:
    """All begin with a space, as T5's do, and are shown by their names."""
    for i in range(sentinels.count):
        piece = proto.pieces[sentinels.id(i)]
        piece.piece, piece.type = f"▁<extra_id_{i}>", piece.USER_DEFINED


def _forget_sentinels(proto: Any) -> None:
    """A document that holds '<extra_id_0>' gets the pieces of these twelve characters."""
    for piece in proto.pieces:
        if piece.type != piece.CONTROL and _sentinel_name(piece):
            piece.type = piece.UNUSED


def _processor(model: bytes, name: str) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise _no_model(name, str(error).partition("INTERNAL: ")[2]) from error


def _no_model(name: str, why: str) -> UserError:
    return UserError(
        f"VOCABULARY={name!r} is not a SentencePiece model ({why[:100]}): give 'default', 't5', "
        "'mt5', 'python_docs', 'python_code', 'python_code_1000', 'bytes' or the path of a "
        ".model file."
    )
