"""Tokenizers of transformers' folders: what SentencePiece and transformers make of a text."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece

from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.errors import UserError
from switchx.interop.hf_tokenizer import read_vocabulary
from tests.interop.peers import transformers

TEXT = Path(__file__).read_text()
SAMPLES = [*TEXT.splitlines(), "a ﬁne Ⅷ  half", ""]  # the table makes letters of two of these


def trained(folder: Path, vocab_size: int = 300, **ids: int) -> Path:
    """A folder with a spiece.model."""
    folder.mkdir()
    (folder / "text").write_text(TEXT + "fine VIII half")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "spiece"),
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        minloglevel=2,
        **{**dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1), **ids},
    )
    (folder / "spiece.vocab").unlink()
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same tokenizer as SentencePiece wrote it, and as transformers 5 saves it."""
    root = tmp_path_factory.mktemp("tokenizers")
    spiece = trained(root / "spiece")
    transformers.T5Tokenizer.from_pretrained(str(spiece)).save_pretrained(root / "saved")
    assert not (root / "saved" / "spiece.model").exists()
    return {"spiece": spiece, "saved": root / "saved"}


@pytest.fixture
def both(folders, tmp_path) -> Path:
    shutil.copytree(folders["saved"], tmp_path / "both")
    shutil.copy(folders["spiece"] / "spiece.model", tmp_path / "both")
    return tmp_path / "both"


def test_a_tokenizer_json_alone_is_the_model_that_it_was_made_of(folders):
    file = SentencePieces((folders["spiece"] / "spiece.model").read_bytes())
    found = read_vocabulary(folders["saved"])
    assert found is not None
    extracted = SentencePieces(found)
    assert extracted.ids == file.ids
    for text in SAMPLES:
        assert extracted.encode(text) == file.encode(text)
        assert extracted.decode(file.encode(text)) == file.decode(file.encode(text))
    theirs = transformers.AutoTokenizer.from_pretrained(folders["saved"])
    blanks = "the <extra_id_0> of <extra_id_99> it"
    expected = theirs(blanks, add_special_tokens=False)["input_ids"]
    assert extracted.encode_blanks(blanks) == expected
    assert (theirs.pad_token_id, theirs.eos_token_id) == (0, extracted.ids.eos)


def test_both_files_that_say_the_same_are_the_model_as_it_is(both, folders):
    assert read_vocabulary(both) == (folders["spiece"] / "spiece.model").read_bytes()
    assert read_vocabulary(folders["spiece"]) == (both / "spiece.model").read_bytes()


def test_files_that_differ_are_refused(both):
    at = 200
    content = json.loads((both / "tokenizer.json").read_text())
    content["model"]["vocab"][at][1] += 1e-3
    (both / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"tokenizer\.json differ at id {at}: "):
        read_vocabulary(both)


def test_sentinels_that_the_settings_add(folders, tmp_path):
    """As UMT5's 300."""
    folder = shutil.copytree(folders["spiece"], tmp_path / "more")
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 300}))
    found = SentencePieces(read_vocabulary(folder))
    theirs = transformers.T5Tokenizer.from_pretrained(str(folder), extra_ids=300)
    for i in (0, 1, 299):
        assert found.sentinel_id(i) == theirs.convert_tokens_to_ids(f"<extra_id_{i}>")


def test_what_no_sentence_piece_model_can_say_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["saved"], tmp_path / "other")
    content = json.loads((folder / "tokenizer.json").read_text())
    for changed, part in (
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "is a BPE model"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizes text by 'Lowercase'"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps({**content, **changed}))
        with pytest.raises(UserError, match=part):
            read_vocabulary(folder)
