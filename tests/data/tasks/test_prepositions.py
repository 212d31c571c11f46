"""The task of docs/finetuning.md against a plain reading of the same documents."""

import itertools

from switchx import data
from switchx.data.tasks import prepositions
from tests.data.conftest import docs_config

ROWS = 12
PREPOSITIONS = ("at", "as", "by", "from", "on", "with", "for", "in", "to", "of")


def blanked(document):
    """Its passages with a blank and what the blank held, read word by word."""
    words = document.split(" ")
    for first in range(0, len(words) - 19, 20):
        passage = words[first : first + 20]
        for at in range(6, 16):
            if passage[at] in PREPOSITIONS:
                before, behind = " ".join(passage[:at]), " ".join(passage[at + 1 :])
                yield f"{before} <extra_id_0> {behind}", f"<extra_id_0> {passage[at]}"
                break


def test_rows_are_the_passages_of_the_validation_text(docs_corpus):
    text = (docs_corpus.folder / "validation-00000-of-00001.txt").read_text()
    passages = itertools.chain.from_iterable(map(blanked, text.splitlines()))
    expected = list(itertools.islice(passages, ROWS))
    config = docs_config(
        mixture_or_task_name="python_docs_prepositions",
        feature_lengths={"inputs": 256, "targets": 4},
        batch_size=ROWS,
    )
    vocabulary = data.vocabulary(config)
    batch = next(data.eval_batches(config))
    inputs, targets = (
        batch[name].tolist() for name in ("encoder_input_tokens", "decoder_target_tokens")
    )
    for row, target, (passage, answer) in zip(inputs, targets, expected, strict=True):
        assert (vocabulary.decode(row), vocabulary.decode(target)) == (passage, answer)
        assert row[: row.index(1)] == vocabulary.encode_blanks(passage)  # with a true sentinel
        assert target[1] != 1
        assert prepositions.word_of(vocabulary.decode(target)) == answer.split()[1]


def test_its_lengths_need_hold_no_spans():
    lengths = {"inputs": 64, "targets": 4}  # 64 tokens of span corruption need 14
    data.check_settings(
        docs_config(mixture_or_task_name="python_docs_prepositions", feature_lengths=lengths)
    )


def test_answers_of_any_form_have_a_word_or_none():
    answers = ["<extra_id_0> of <extra_id_1> the", "<extra_id_0>to", "<extra_id_0>", "of", ""]
    assert list(map(prepositions.word_of, answers)) == ["of", "to", "", "", ""]
    found = prepositions.accuracy(["of", "to", "in", "of"], ["of", "to", "", "in"])
    assert found == {"accuracy": 50.0}
