"""switchx data vocabulary: a model with T5's ids and sentinels, the same from the same text."""

import gzip
import itertools
import json
import re

import pytest
import sentencepiece

from switchx import storage
from switchx.data.tasks import vocabulary_training
from switchx.data.tasks.sentence_pieces import SentencePieces
from switchx.errors import UserError

SYLLABLES = ["ka", "lo", "mi", "ne", "ru", "so", "ti", "va", "xe", "zo"]
WORDS = ["".join(parts) for parts in itertools.permutations(SYLLABLES, 3)]


def write(path, first, count):
    """Texts of 30 words each, others at each place."""
    numbers = [
        [(i * i + 7 * j) % len(WORDS) for j in range(30)] for i in range(first, first + count)
    ]
    lines = [json.dumps({"text": " ".join(WORDS[n] for n in row)}) for row in numbers]
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def train(command, tmp_path):
    write(tmp_path / "a.jsonl", 0, 300)
    write(tmp_path / "b.json.gz", 900, 300)

    def call(*flags, output="words.model"):
        return command("data", "vocabulary", "--input=*.json*", f"--output={output}", *flags)

    return call


def test_a_vocabulary_and_its_ids(train, tmp_path):
    outcome = train("--size=400")
    assert (outcome.status, outcome.err) == (0, ""), outcome
    assert "400 ids, the last 100 of them sentinels" in outcome.out
    assert "--gin.VOCABULARY=" in outcome.out
    content = (tmp_path / "words.model").read_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    special = theirs.pad_id(), theirs.eos_id(), theirs.unk_id(), theirs.bos_id()
    assert (theirs.get_piece_size(), special) == (400, (0, 1, 2, -1))
    names = [theirs.id_to_piece(i) for i in (300, 399)]
    assert names == ["▁<extra_id_99>", "▁<extra_id_0>"]
    words = SentencePieces(content)
    assert (words.size, words.added_sentinels, words.ids.is_t5s) == (400, 0, True)
    assert words.decode(words.encode("kalomi 東 zo")) == "kalomi 東 zo"

    assert train("--size=400", output="again").status == 0
    assert (tmp_path / "again" / "sentencepiece.model").read_bytes() == content
    refused = train("--size=400")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "--output='words.model' exists already" in refused.err
    assert train("--size=380", "--sentinels=20", output="few.model").status == 0
    assert SentencePieces((tmp_path / "few.model").read_bytes()).sentinels == 20


def test_in_a_bucket(gs, train, command, tmp_path):
    folder = gs.folder()
    for name in ("a.jsonl", "b.json.gz"):
        storage.write_whole(f"{folder}/{name}", (tmp_path / name).read_bytes())
    given = [f"--input={folder}/*.json*", f"--output={folder}/v", "--size=380"]
    outcome = command("data", "vocabulary", *given)
    assert (outcome.status, train("--size=380").status) == (0, 0), outcome
    assert f"--gin.VOCABULARY='{folder}/v/sentencepiece.model'" in outcome.out
    there = storage.read_bytes(f"{folder}/v/sentencepiece.model", "VOCABULARY")
    assert there == (tmp_path / "words.model").read_bytes()
    assert "exists already" in command("data", "vocabulary", *given).err


@pytest.mark.parametrize("size", [359, 365, 100_000])
def test_sizes_that_the_text_cannot_give_and_the_advice(train, size, tmp_path):
    outcome = train(f"--size={size}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert f"--size={size} is too" in outcome.err
    assert not (tmp_path / "words.model").exists()
    advised = re.search(r"give at (?:least|most) (\d+)", outcome.err)
    assert (advised is None) == (size == 359)
    if advised:
        assert train(f"--size={advised[1]}").status == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--size=400", "--input=no*"], "--input='no*' matches no file"),
        (["--size=2147483648"], "--size=2147483648 is too large: give at most 2147483647"),
        (["--size=x"], "--size='x' must be a whole number."),
        ([], "--size is required"),
        (["--size=400", "--sample_mb=0"], "--sample_mb=0 is no size"),
    ],
)
def test_mistakes(train, flags, says):
    outcome = train(*flags)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert says in outcome.err


def test_a_sample_takes_of_each_file_in_turn(tmp_path):
    paths = []
    for name in "abc":
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": f"{name} {i:03}"}) for i in range(500)))
        paths.append(str(path))
    sample = vocabulary_training.Sample(paths, "text", 5 * 800)
    texts = list(sample.texts(lambda size: None))
    assert len(texts) == 800
    of = ["".join(text[0] for text in texts).count(name) for name in "abc"]
    assert min(of) > 250
    (tmp_path / "d.jsonl").write_text('{"words": "one"}\n')
    other = vocabulary_training.Sample([str(tmp_path / "d.jsonl")], "words", 9)
    assert list(other.texts(lambda size: None)) == ["one"]
    other = vocabulary_training.Sample([str(tmp_path / "d.jsonl")], "text", 9)
    with pytest.raises(UserError, match=r"--text_field='text' is in none.*fields are 'words'"):
        list(other.texts(lambda size: None))


def test_long_lines_are_cut_and_none_is_left_out():
    text = "word " * 700 + "x" * 2500
    parts = list(vocabulary_training.sentences([text, "a\nb"]))
    assert "".join(parts) == text + "ab"
    assert max(len(part.encode()) for part in parts) <= 4 * 1000
