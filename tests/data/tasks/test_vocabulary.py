"""Plain vocabularies give the ids of seqio's, and sentinels survive both ways."""

import pytest
import sentencepiece

from switchx.data import vocabulary
from switchx.data.tasks.vocabularies import Bytes
from switchx.errors import UserError

from ..conftest import docs_config
from .pieces import model_with

TEXTS = [
    "Returns the sum of two arrays, element by element.",
    "a  <extra_id_0>\n of <extra_id_3> arrays",
    "x = np.zeros((3, 4), dtype=float32)  # 100 %",
    "Grüße, 東京!",
]


@pytest.fixture(params=["python_docs", "bytes", "t5"], scope="module")
def choice(request):
    if request.param == "t5":
        return request.getfixturevalue("t5_model")
    return request.param


def test_ids_are_seqios(choice):
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.tasks import lookup

    config = docs_config(vocabulary=choice)
    ours = vocabulary(config)
    seqios = lookup.find_provider(config).output_features["targets"].vocabulary
    assert (ours.size, ours.eos_id, ours.pad_id) == (seqios.vocab_size, seqios.eos_id, 0)
    for text in TEXTS:
        assert ours.encode(text) == seqios.encode_tf(text).numpy().tolist()
        if "<" not in text:
            assert ours.encode(text) == list(seqios.encode(text)) == ours.encode_blanks(text)


@pytest.mark.parametrize("text", ["a <extra_id_0>", "<extra_id_99>b", "<pad> c", "d</s>", "<unk>"])
def test_no_text_is_a_sentinel_or_a_control_id(choice, text):
    words = vocabulary(docs_config(vocabulary=choice))
    ids = words.encode(text)
    assert len(ids) >= 3
    assert not {words.pad_id, words.eos_id} & set(ids)
    assert max(ids) < words.sentinel_id(words.sentinels - 1)
    if choice != "t5" and not choice.endswith(".model"):  # T5's has no piece for '<'
        assert words.decode(ids) == text


def test_sentinels(choice):
    words = vocabulary(docs_config(vocabulary=choice))
    assert [words.sentinel_id(i) for i in (0, 1, 99)] == [words.size - 1 - i for i in (0, 1, 99)]
    ids = words.encode_blanks("the <extra_id_0> of <extra_id_99>")
    assert [i for i in ids if i >= words.size - 100] == [
        words.sentinel_id(0),
        words.sentinel_id(99),
    ]
    assert words.decode(ids) == "the <extra_id_0> of <extra_id_99>"
    inside = words.encode_blanks("arr<extra_id_1>s <extra_id_2><extra_id_3>")
    assert [i for i in inside if i >= words.size - 100] == [words.sentinel_id(i) for i in (1, 2, 3)]


def test_text_comes_back(choice):
    words = vocabulary(docs_config(vocabulary=choice))
    assert words.decode(words.encode(TEXTS[0])) == TEXTS[0]
    ids = words.encode("one")
    assert words.decode([0, *ids, 0, words.eos_id, *ids]) == "one"
    assert words.decode([]) == ""
    assert words.decode([words.size + 20])  # an id of the padded table is shown, not an error


def test_sizes(t5_model):
    assert vocabulary(docs_config(vocabulary=t5_model)).size == 32100
    assert vocabulary(docs_config(vocabulary="bytes")).size == 3 + 256 + 100
    assert vocabulary(docs_config()).size == 2100
    assert vocabulary(docs_config()).sentinel_id(0) == 2099


def test_nothing_is_unknown_to_the_embedded_vocabulary():
    words = vocabulary(docs_config())
    assert words.decode(words.encode("Grüße, 東京!")) == "Grüße, 東京!"


def test_fingerprints_differ(t5_model):
    choices = ("python_docs", "bytes", t5_model)
    prints = {vocabulary(docs_config(vocabulary=choice)).digest for choice in choices}
    assert len(prints) == 3
    assert Bytes(100).digest != Bytes(0).digest


def test_bytes_decode_what_is_not_text():
    assert Bytes().decode([3 + 0xFF, 3 + ord("a"), 2]) == "\ufffda\ufffd"


def test_a_model_of_the_users_own(tmp_path):
    path = tmp_path / "my.model"
    path.write_bytes(model_with(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    words = vocabulary(docs_config(vocabulary=str(path)))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    assert words.size == pieces + 100
    assert words.decode(words.encode_blanks("some <extra_id_7> words")) == "some <extra_id_7> words"


def test_files_that_are_no_vocabulary(tmp_path):
    path = tmp_path / "text.model"
    path.write_text("no model")
    with pytest.raises(UserError, match=r"VOCABULARY='.*text.model' is not a SentencePiece model"):
        vocabulary(docs_config(vocabulary=str(path)))
    with pytest.raises(UserError, match="VOCABULARY='/no/such' leads to '/no/such', which cannot"):
        vocabulary(docs_config(vocabulary="/no/such"))


def test_a_bucket_that_does_not_answer(monkeypatch):
    import threading

    from switchx.data import tensorflow_loader

    monkeypatch.setattr(tensorflow_loader, "LIBRARY_SECONDS", 0.05)
    with pytest.raises(UserError, match=r"VOCABULARY leads to 'gs://b/m', .*no answer within 0 s"):
        tensorflow_loader.within_limit(threading.Event().wait, "gs://b/m", "VOCABULARY")
