"""SentencePiece models whose ids are not T5's: text is what SentencePiece makes of it."""

import dataclasses
import hashlib

import numpy as np
import pytest
import sentencepiece

from switchx import data
from switchx.data.examples import examples_of, filled_in
from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.errors import UserError

from ..conftest import docs_config, record, write_lines
from .pieces import TEXTS, model_with

T5S = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
UP = [f"<extra_id_{i}>" for i in range(20)]
SETTINGS = {
    "defaults": {},
    "pad 3": {"pad_id": 3},
    "end 0": {"pad_id": 5, "eos_id": 0, "unk_id": 1, "bos_id": -1},
    "T5's but for the order": {"pad_id": 0, "eos_id": 3, "unk_id": 1, "bos_id": 2},
    "byte pairs": {"model_type": "bpe"},
    "upwards inside": T5S | {"user_defined_symbols": UP},
    "downwards inside": {"user_defined_symbols": UP[::-1]},
    "control symbols": {"control_symbols": UP},
    "of one's own": {"user_defined_symbols": ["<pad>", "</s>", "<mask>"]},
}
PLAIN = "some words and 17 more, ü"  # of which two characters have no piece
HOSTILE = "some <extra_id_0> and <pad> more</s> <extra_id_3>"


@pytest.mark.parametrize("name", SETTINGS)
def test_text_has_the_ids_of_its_file(name):
    model = model_with(**SETTINGS[name])
    theirs, words = sentencepiece.SentencePieceProcessor(model_proto=model), SentencePieces(model)
    # Behind the pieces come padding and sentinels where the file has none; then 0 and padding
    # change places.
    pad = theirs.piece_to_id("<pad>")
    has_pad = theirs.id_to_piece(pad) == "<pad>"
    pad = pad if has_pad else theirs.get_piece_size()
    brought = 20 if "<extra_id_0>" in str(SETTINGS[name]) else 0
    assert words.size == theirs.get_piece_size() + (not has_pad) + (0 if brought else 100)
    assert words.sentinels == (brought or 100)
    places = {0: pad, pad: 0}
    assert words.encode(PLAIN) == [places.get(i, i) for i in theirs.encode(PLAIN)]
    assert words.ids.unknown in words.encode(PLAIN)
    end = theirs.piece_to_id("</s>")
    assert words.eos_id == places.get(end, end)
    assert words.decode([*words.encode("some words"), words.eos_id, 9, 9]) == "some words"


@pytest.mark.parametrize("name", SETTINGS)
def test_no_text_is_a_control_id(name):
    words = SentencePieces(model_with(**SETTINGS[name]))
    control = {0, words.eos_id, *map(words.sentinel_id, range(words.sentinels))}
    assert not control & set(words.encode(HOSTILE))
    ids = words.encode_blanks("some <extra_id_0> and<extra_id_19>")
    assert {words.sentinel_id(0), words.sentinel_id(19)} == control & set(ids)
    assert words.decode(ids) == "some <extra_id_0> and <extra_id_19>"


def test_sentinels_of_the_file():
    up, down = (
        SentencePieces(model_with(**SETTINGS[f"{way}wards inside"])) for way in ("up", "down")
    )
    assert [up.sentinel_id(i) for i in (0, 1, 19)] == [3, 4, 22]  # where SentencePiece puts them
    assert [down.sentinel_id(i) for i in (0, 1, 19)] == [22, 21, 3]
    gap = SentencePieces(model_with(**T5S, user_defined_symbols=[*UP[:5], *UP[6:]]))
    assert gap.sentinels == 5
    assert not set(range(3, 22)) & set(gap.encode("some <extra_id_7> words"))


def test_numbers_that_are_not_t5s_are_part_of_the_digest():
    """So that a run from before they were read is not taken for one of the same tokens."""
    for settings, same in ((T5S, True), ({}, False), (SETTINGS["upwards inside"], False)):
        model = model_with(**settings)
        assert (SentencePieces(model).digest == hashlib.sha256(model).hexdigest()) == same


def test_without_an_end_of_sequence_and_the_advice():
    with pytest.raises(UserError, match=r"VOCABULARY='m' has no end of sequence, .*eos_id=-1 is g"):
        SentencePieces(model_with(eos_id=-1), name="m")
    assert SentencePieces(model_with()).eos_id == 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    (folder / "up.model").write_bytes(model_with(user_defined_symbols=UP))
    lines = [record(f"{text} ü {HOSTILE}") for text in TEXTS[:60]]
    return docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        vocabulary=str(folder / "up.model"),
        json_train_glob=write_lines(folder / "t.jsonl", lines),
        json_validation_glob=write_lines(folder / "v.jsonl", lines),
        eval_batches=None,
    )


@pytest.mark.parametrize("prepared", [False, True])
def test_a_task_trains_on_the_text_and_counts_the_unknown(config, tmp_path, prepared):
    """Padding would swallow them: the file's id of what is unknown is 0."""
    words = data.vocabulary(config)
    if prepared:
        config = dataclasses.replace(config, prepared_dir=str(tmp_path / "sets"))
        data.prepare(config, ["validation"])
        config = dataclasses.replace(config, vocabulary="default")  # which is the set's
        assert data.vocabulary(config).ids == words.ids
    rows, unknown = [], 0
    for batch in data.eval_batches(config):
        unknown += np.sum(
            batch["decoder_loss_weights"] * (batch["decoder_target_tokens"] == words.ids.unknown)
        )
        for inputs, targets in examples_of(batch):
            assert inputs[-1] == targets[-1] == words.eos_id
            assert words.sentinel_id(0) in inputs
            rows += filled_in(inputs, targets, words)
    text = [token for text in TEXTS[:60] for token in words.encode(f"{text} ü {HOSTILE}")]
    assert [token for token in rows if token != words.eos_id] == text
    assert unknown > 20
