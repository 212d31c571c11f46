"""Broken lines are skipped, counted and, past a share, an error; nothing hangs."""

import dataclasses
import json

import numpy as np
import pytest

from switchx.data import eval_batches, preflight, train_stream
from switchx.errors import UserError

from ..conftest import docs_config, record, sentences, write_lines

BROKEN = ["{not json", "[1, 2]", '"text"', '{"url": "no text"}', '{"text": 7}', "\udcff"]


@pytest.fixture
def shards(tmp_path, t5_model):
    """Writes shards of given lines; returns their config."""

    def make(train, validation=None, **changes):
        good = list(map(record, sentences(40)))
        write_lines(tmp_path / "v.jsonl", good if validation is None else validation)
        return docs_config(
            mixture_or_task_name="c4_json_span_corruption",
            json_train_glob=write_lines(tmp_path / "t.json.gz", train),
            json_validation_glob=str(tmp_path / "v.jsonl"),
            vocabulary=t5_model,
            **changes,
        )

    return make


def one_pass(config, split="train"):
    """The source of a config and all texts of a split, in order."""
    from switchx.data.tensorflow_loader import load_tensorflow

    load_tensorflow()
    from switchx.data.tasks.lookup import find_provider

    source = find_provider(config).source
    return source, [row["text"].numpy().decode() for row in source.get_dataset(split, False)]


def test_broken_lines_are_counted_exactly(shards):
    texts = sentences(300)
    broken = [line for line in BROKEN if line != "\udcff"]
    lines = [*map(record, texts[:150]), *broken, record("   "), *map(record, texts[150:])]
    source, found = one_pass(shards(lines, max_broken_share=0.05))
    assert found == texts
    assert source.counter.lines == 300 + len(broken) + 1
    assert source.counter.broken == len(broken)  # an empty text is a text


def block(*lines):
    """The lines of a file that begins with a good one, behind that one."""
    from switchx.data.files import Record, Records
    from switchx.data.tasks.texts import Block

    records = [Record(number, line, len(line)) for number, line in enumerate(lines, 2)]
    return Block(Records("shard", "X", iter([record("good").encode()])), records)


def test_every_kind_of_broken_line():
    from switchx.data.tasks.texts import LineCounter

    counter = LineCounter(1.0)
    lines = [line.encode("utf-8", "surrogateescape") for line in [*BROKEN, "[" * 100_000]]
    texts = counter.parse(block(*lines, record("good").encode()))
    assert texts.tolist() == [b"good"]
    assert (counter.lines, counter.broken) == (len(BROKEN) + 2, len(BROKEN) + 1)


def test_share_is_judged_from_a_thousand_lines_on():
    from switchx.data.tasks.texts import LineCounter

    counter = LineCounter(0.01)
    good = record("good").encode()
    counter.parse(block(b"{first bad", *[good] * 8))  # 1 in 9: too early to judge
    counter.parse(block(*[b"bad"] * 9, *[good] * 982))  # 10 in 1,000: allowed
    with pytest.raises(UserError, match=r"MAX_BROKEN_LINES=0.01 but 11 of 1001 .*'\{first bad'"):
        counter.parse(block(b"bad"))
    assert counter.failure is not None


@pytest.mark.parametrize("entrance", [preflight, lambda c: next(train_stream(c))])
def test_too_many_broken_lines(shards, entrance):
    config = shards(["{broken"] * 3 + list(map(record, sentences(50))))
    with pytest.raises(UserError, match=r"MAX_BROKEN_LINES=0.01 but 3 of 53 .*t.json.gz.*brok"):
        entrance(config)


def test_evaluation_stops_as_well(shards):
    config = shards(list(map(record, sentences(40))), validation=["{"] * 5, max_broken_share=0.5)
    with pytest.raises(UserError, match=r"MAX_BROKEN_LINES=0.5 but 5 of 5 lines"):
        list(eval_batches(config))


@pytest.mark.parametrize("lines", [[], [""], ['{"text": ""}'] * 9, ["{"] * 9, [record(" \n")] * 2])
def test_no_text_is_an_error_and_no_endless_loop(shards, lines):
    config = shards(lines, max_broken_share=1.0)
    entrance = preflight if lines else lambda config: next(train_stream(config))
    with pytest.raises(UserError, match=r"has no text: [0-9]+ lines were read"):
        entrance(config)


def test_damaged_compression(shards, tmp_path):
    config = shards(map(record, sentences(40)))
    path = tmp_path / "t.json.gz"
    path.write_bytes(path.read_bytes()[:40] + b"garbage" * 20)
    with pytest.raises(
        UserError, match=r"C4_JSON_TRAIN leads to '.*t.json.gz', whose .* is damaged"
    ):
        preflight(config)


def test_globs(shards, tmp_path):
    config = shards(map(record, sentences(40)))
    preflight(config)
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN is not set: give the shards"):
        preflight(dataclasses.replace(config, json_train_glob=None))
    with pytest.raises(UserError, match=r"C4_JSON_VALIDATION is not set: .*c4-validation"):
        preflight(dataclasses.replace(config, json_validation_glob=None))
    with pytest.raises(UserError, match=r"C4_JSON_TRAIN='.*none-.*' matches no file"):
        preflight(dataclasses.replace(config, json_train_glob=str(tmp_path / "none-*.json")))


def test_batches_hold_the_text(shards):
    config = shards(map(record, sentences(200)), feature_lengths={"inputs": 128, "targets": 30})
    batch = next(train_stream(config))
    assert (batch["encoder_input_tokens"] != 0).all()
    assert np.issubdtype(batch["encoder_input_tokens"].dtype, np.int32)


def test_text_is_kept_as_it_is(shards):
    texts = ["line one\nline two", "Grüße \u2014 東京", 'tab\tand \\ "quotes"', "a\ud800b"]
    lines = [json.dumps({"text": text}) for text in texts]
    _, found = one_pass(shards(lines))
    assert found == [*texts[:3], "a?b"]
