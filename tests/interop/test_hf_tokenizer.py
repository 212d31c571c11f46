"""Tokenizers of transformers' folders: what SentencePiece and transformers make of a text."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.errors import UserError
from switchx.interop.hf_tokenizer import read_vocabulary
from switchx.settings import Request, load
from tests.interop.peers import peer, save, transformers
from tests.interop.test_hf_command import RUN, assert_bitwise, exported, tensors

TEXT = Path(__file__).read_text()
SAMPLES = [*TEXT.splitlines(), "a ﬁne Ⅷ  half", ""]  # the table makes letters of two of these
OTHER_IDS = dict(pad_id=3, eos_id=2, unk_id=0, bos_id=1)


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


def test_padding_and_end_where_the_folder_has_them(command, tmp_path):
    """Padding at 3, 0 a piece of text: the rows change places, and back."""
    folder = trained(tmp_path / "theirs", **OTHER_IDS)
    model = peer("t5_1_1")
    config = dict(pad_token_id=3, eos_token_id=2, decoder_start_token_id=3)
    save(model, folder)
    written = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(written))
    content = (folder / "spiece.model").read_bytes()
    bigger = sentencepiece_model_pb2.ModelProto.FromString(content)
    assert len(bigger.pieces) + 100 > 360  # so the folder says that it has fewer sentinels
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 20}))

    run = [flag for flag in RUN if "VOCABULARY" not in flag]
    run += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}"]  # 4 sentinels
    argv = ["import", "--from=hf", f"--input={folder}", "--model_dir=run", *run]
    refused = command(*argv, "--gin.VOCABULARY=bytes")
    assert refused.status == 2
    assert "has padding 0 and end of sequence 1, but" in refused.err
    outcome = command(*argv)
    assert outcome.status == 0, outcome.err
    exported(command, "run", "back")
    assert_bitwise(tensors(tmp_path / "back"), tensors(folder))
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: back[key] for key in config} == config

    (tmp_path / "run").rename(tmp_path / "moved")
    data = load(Request(("moved/config.gin",))).data
    found = SentencePieces(Path(data.vocabulary).read_bytes())
    assert Path(data.vocabulary).resolve() == (tmp_path / "moved/vocabulary.model").resolve()
    assert (found.ids.file_pad, found.ids.eos) == (3, 2)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    for text in SAMPLES:
        ids = [found.ids.exchanged(token) for token in found.encode(text)]
        np.testing.assert_array_equal(ids, theirs.encode(text))
