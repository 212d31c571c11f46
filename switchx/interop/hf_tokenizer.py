"""The tokenizer of a transformers folder as a SentencePiece model: spiece.model, tokenizer.json.

Where both are there they must say the same: each piece at its id, and its score. transformers 5
saves tokenizer.json alone: a Unigram model there is all that a SentencePiece model has, pieces,
scores and the table of its normalizer.
"""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.data.files.formats import check_fetched
from switchx.data.tasks.ids import Ids
from switchx.errors import UserError
from switchx.interop.hf_files import read_json

SPIECE, TOKENIZER, SETTINGS = "spiece.model", "tokenizer.json", "tokenizer_config.json"
_SENTINEL = re.compile(r"▁?<extra_id_\d+>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_T5S_SENTINELS = 100  # which its tokenizer adds where nothing else is said
_MOST_SENTINELS = 100_000
# Of normalizers, beside the table: what SentencePiece does with spaces anyway.
_SPACES = ("Replace", "Strip", "Prepend")


def read_vocabulary(folder: Path) -> bytes | None:
    """The SentencePiece model of a folder, with all ids that its tokenizer has; None without one.

    Raises:
      UserError: two files contradict each other, one is damaged, or there is one that no
        SentencePiece model can say the same as.
    """
    try:
        return _vocabulary(folder)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: {TOKENIZER} or {SETTINGS} is not as transformers writes it "
            f"({type(error).__name__}: {str(error)[:100]})."
        ) from None


def _vocabulary(folder: Path) -> bytes | None:
    content = storage.read_if_there(folder / SPIECE, "--input")
    theirs = _read(folder / TOKENIZER)
    settings = _read(folder / SETTINGS) or {}
    if content is None and theirs is None:
        return None
    if content is None:
        assert theirs is not None
        proto = _extracted(theirs, settings, folder / TOKENIZER)
    else:
        proto = _parsed(content, folder / SPIECE)
        if theirs is not None:
            _check_same(proto, theirs, folder)
    more = _further(len(proto.pieces), theirs or {}, settings)
    as_t5 = [more[number] for number in sorted(more)] == _t5s_sentinels(_T5S_SENTINELS)
    if content is not None and (as_t5 or not more):  # which are added to it anyway
        return content
    for number in sorted(more):
        if number != len(proto.pieces):
            raise UserError(
                f"{folder}: the tokenizer has no piece of id {len(proto.pieces)}, but one of "
                f"{number}, {more[number]!r}: name a SentencePiece model with VOCABULARY."
            )
        proto.pieces.add(piece=more[number], score=0.0, type=proto.SentencePiece.USER_DEFINED)
    return bytes(proto.SerializeToString())


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if storage.is_file(path, "--input") else None


def _proto_class() -> Any:
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]


def _parsed(content: bytes, file: Path) -> Any:
    from google.protobuf.message import DecodeError

    check_fetched(content, file, "--input")
    try:
        return _proto_class().FromString(content)
    except DecodeError as error:
        raise UserError(f"{file} is no SentencePiece model ({str(error)[:100]}).") from None


def _pieces(theirs: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """What tokenizer.json has at each id; of merged pairs (BPE) without scores."""
    vocab = theirs["model"]["vocab"]
    if isinstance(vocab, dict):
        return [(piece, None) for piece, _ in sorted(vocab.items(), key=lambda item: item[1])]
    return [(str(piece), float(score)) for piece, score in vocab]


def _check_same(proto: Any, theirs: Mapping[str, Any], folder: Path) -> None:
    found = _pieces(theirs)
    for number, piece in enumerate(proto.pieces):
        named, score = found[number] if number < len(found) else ("nothing", None)
        if named != piece.piece or (score is not None and np.float32(score) != piece.score):
            raise UserError(
                f"{folder}: {SPIECE} and {TOKENIZER} differ at id {number}: {piece.piece!r} "
                f"({piece.score:.6g}) and {named!r} ({score}): remove the one that the model was "
                "not trained with."
            )


def _further(count: int, theirs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[int, str]:
    """The tokenizer's pieces behind the first `count`, by id."""
    found: dict[int, str] = {}
    if theirs:
        found |= {n: piece for n, (piece, _) in enumerate(_pieces(theirs)) if n >= count}
    added = [(token.get("id"), token) for token in theirs.get("added_tokens", ())]
    added += list(settings.get("added_tokens_decoder", {}).items())
    found |= {int(number): token["content"] for number, token in added if int(number) >= count}
    if not found and not theirs and "extra_ids" in settings:
        return dict(enumerate(_t5s_sentinels(settings["extra_ids"]), count))
    return found


def _t5s_sentinels(count: int) -> list[str]:
    if type(count) is not int or not 0 <= count <= _MOST_SENTINELS:
        raise ValueError(f"extra_ids={count!r}")
    return [f"<extra_id_{i}>" for i in reversed(range(count))]


def _extracted(theirs: Mapping[str, Any], settings: Mapping[str, Any], file: Path) -> Any:
    """A SentencePiece model out of a Unigram model."""
    model = theirs.get("model") or {}
    kind = model.get("type")
    if kind != "Unigram":
        raise UserError(
            f"{file} is a {kind} model, which no SentencePiece model can say, and there is no "
            f"{SPIECE}: name the vocabulary with VOCABULARY, as in --gin.VOCABULARY=.../{SPIECE}."
        )
    proto = _proto_class()()
    special = {token["content"] for token in theirs.get("added_tokens", ()) if token.get("special")}
    kinds = proto.SentencePiece
    for number, (piece, score) in enumerate(_pieces(theirs)):
        kind = kinds.NORMAL
        if number == model.get("unk_id"):
            kind = kinds.UNKNOWN
        elif _SENTINEL.fullmatch(piece):
            kind = kinds.USER_DEFINED
        elif piece in special:
            kind = kinds.CONTROL
        elif model.get("byte_fallback") and _BYTE.fullmatch(piece):
            kind = kinds.BYTE
        proto.pieces.add(piece=piece, score=score, type=kind)
    trained = proto.trainer_spec
    trained.model_type = trained.UNIGRAM
    trained.byte_fallback = bool(model.get("byte_fallback"))
    trained.bos_id = -1
    for token, default in {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}.items():
        name = settings.get(f"{token}_token", default)
        name = name["content"] if isinstance(name, dict) else name
        setattr(trained, f"{token}_piece", name)
        ids = [n for n, piece in enumerate(proto.pieces) if piece.piece == name]
        setattr(trained, f"{token}_id", ids[0] if ids else -1)
    trained.vocab_size = len(proto.pieces)
    proto.normalizer_spec.name = "user_defined"
    proto.normalizer_spec.precompiled_charsmap = _charsmap(theirs.get("normalizer"), file)
    return proto


def write_vocabulary(folder: Path, model: bytes, ids: Ids) -> bool:
    """Writes spiece.model and tokenizer_config.json, as T5Tokenizer reads them.

    Returns:
      Whether it can: it wants padding 0, unknown 2 and sentinels where T5's are.
    """
    if not ids.is_t5s or ids.unknown != 2:
        return False
    proto = _parsed(model, folder / SPIECE)
    settings = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": ids.size - len(proto.pieces),
        **{f"{t}_token": getattr(proto.trainer_spec, f"{t}_piece") for t in ("unk", "eos", "pad")},
    }
    (folder / SPIECE).write_bytes(model)
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")
    return True


def _charsmap(normalizer: Any, file: Path) -> bytes:
    """The table of replaced characters, b"" without one."""
    steps = [normalizer] if normalizer else []
    if steps and normalizer.get("type") == "Sequence":
        steps = normalizer.get("normalizers", [])
    table = b""
    for step in steps:
        if step.get("type") == "Precompiled":
            table = base64.b64decode(step["precompiled_charsmap"])
        elif step.get("type") not in _SPACES:
            raise UserError(
                f"{file} normalizes text by {step.get('type')!r}, which no SentencePiece model "
                f"says so, and there is no {SPIECE}: name the vocabulary with VOCABULARY."
            )
    return table
