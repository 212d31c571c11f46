"""TEXT_FILES: the same examples from any format and compression, and an exact resume in each."""

import bz2
import dataclasses
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import zstandard

from switchx.data import check_settings, described_sources, preflight, train_stream
from switchx.data.streamed import pipeline, position
from switchx.data.tasks.text_files import Given
from switchx.data.tasks.text_source import TextSource
from switchx.errors import UserError

from ..conftest import digest, docs_config, sentences

TEXTS = sentences(300)
ROWS = [{"body": {"text": text}, "id": n} for n, text in enumerate(TEXTS)]
COMPRESSIONS = {
    "plain": lambda content: content,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def parquet(rows):
    made = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), made)
    return made.getvalue().to_pybytes()


FORMATS = {
    "text": lambda rows: "\n".join(row["body"]["text"] for row in rows).encode(),
    "JSON lines": lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    "a JSON array": lambda rows: json.dumps(rows).encode(),
    "Parquet": parquet,
}


def config_of(glob, **changes):
    values = {
        "mixture_or_task_name": "text_files_span_corruption",
        "text_files": {"train": str(glob), "validation": str(glob)},
        "text_field": "body.text",
        "vocabulary": "bytes",
        "batch_size": 16,
    }
    return docs_config(**{**values, **changes})


def texts_of(path):
    """An iterator of a file's texts in order, and its checkpoint."""
    source = TextSource({"train": Given("X", str(path))}, "body.text", max_broken_share=0)
    texts = source.get_dataset("train", shuffle=False).map(lambda row: row["text"])
    iterator = iter(texts.with_options(pipeline.reproducible()))
    return iterator, tf.train.Checkpoint(iterator=iterator)


@pytest.mark.parametrize("kind", FORMATS)
def test_all_texts_and_those_behind_a_position(kind, tmp_path):
    """More than a block of records in, plain and by a compression."""
    one = list(COMPRESSIONS)[1 + list(FORMATS).index(kind)]
    for compression in ("plain", one):
        compress = COMPRESSIONS[compression]
        (tmp_path / "x").write_bytes(compress(FORMATS[kind](ROWS)))
        iterator, checkpoint = texts_of(tmp_path / "x")
        first = [next(iterator).numpy().decode() for _ in range(140)]
        saved = checkpoint.write(str(tmp_path / f"{compression}-position"))
        iterator, checkpoint = texts_of(tmp_path / "x")
        checkpoint.read(saved).assert_consumed()
        assert first + [text.numpy().decode() for text in iterator] == TEXTS


def test_rows_are_the_same_whatever_the_compression(tmp_path):
    """Of one glob of all formats; and a stream goes on from its position."""
    found = []
    for folder, compressions in (("a [1]", ["plain"] * 4), ("b", list(COMPRESSIONS)[1:])):
        for number, make in enumerate(FORMATS.values()):
            path = tmp_path / folder / "deep" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(COMPRESSIONS[compressions[number]](make(ROWS[number::4])))
        config = config_of(tmp_path / folder / "**" / "[0-9]*")
        stream = train_stream(config)
        found.append([digest(next(stream)) for _ in range(2)])
        state = stream.state()
        found[-1].append(digest(next(stream)))
    assert found[0] == found[1]
    resumed = train_stream(config)
    resumed.restore(state)
    assert digest(next(resumed)) == found[-1][-1]
    (line,) = described_sources(config)
    assert line.endswith(
        "4 files, the first text in gzip; a document is each line that is not empty"
    )
    other = dataclasses.replace(config, text_field="id")
    with pytest.raises(UserError, match=r"TEXT_FIELD='id', but .* was read with 'body.text'"):
        position.check_settings(position.saved_settings(state[0]), position.source_settings(other))


def test_what_is_measured_on_what_was_trained_on_is_said(tmp_path, capsys):
    good = config_of(tmp_path / "b")
    for name in "ab":
        (tmp_path / name).write_text("A text.\n")
    check_settings(good, ["validation"])
    globs = {"train": str(tmp_path / "a"), "validation": str(tmp_path / "b")}
    check_settings(dataclasses.replace(good, text_files=globs))
    assert capsys.readouterr().err == ""
    globs["train"] = str(tmp_path / "*")
    check_settings(dataclasses.replace(good, text_files=globs))
    assert capsys.readouterr().err == (
        "switchx: TEXT_FILES['validation'] reads 1 file of TEXT_FILES['train'] too, such as "
        f"'{tmp_path / 'b'}': what is measured there is what was trained on\n"
    )
    globs["train"] = globs["validation"]
    own = {"mixture_or_task_name": "task_files", "text_files": None, "task_files": globs}
    check_settings(dataclasses.replace(good, **own))
    assert capsys.readouterr().err.count("TASK_FILES['validation'] reads 1 file of TASK_") == 1


def test_mistakes(tmp_path):
    (tmp_path / "good.json").write_bytes(FORMATS["a JSON array"](ROWS))
    good = config_of(tmp_path / "good.json")
    check_settings(good)
    (tmp_path / "odd").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"^TEXT_FILES\['train'\] leads to '.*odd', which is a ZIP"):
        check_settings(config_of(tmp_path / "*"))
    (tmp_path / "odd").write_bytes(gzip.compress(b"%PDF-1.4\n" * 9000)[:-20])
    with pytest.raises(UserError, match=r"^TEXT_FILES\['train'\] leads to '.*odd', which is a PDF"):
        check_settings(config_of(tmp_path / "*"))
    with pytest.raises(
        UserError, match=r"^TEXT_FILES={'train': .*} names no files for 'validation'"
    ):
        check_settings(dataclasses.replace(good, text_files={"train": str(tmp_path / "good.json")}))
    with pytest.raises(UserError, match=r"^TEXT_FILES=None names no files for 'train': give"):
        check_settings(dataclasses.replace(good, text_files=None))
    with pytest.raises(UserError, match=r"^TEXT_FIELD='' is no name"):
        check_settings(dataclasses.replace(good, text_field=""))
    with pytest.raises(
        UserError,
        match=r"TEXT_FIELD='text' is in none of the first 128 elements of '.*good.json', whose "
        r"fields are 'body', 'id': name the one",
    ):
        preflight(dataclasses.replace(good, text_field="text"), ["train"])
    docs = dataclasses.replace(good, mixture_or_task_name="c4_json_span_corruption")
    docs = dataclasses.replace(docs, json_train_glob=str(tmp_path / "good.json"))
    with pytest.raises(
        UserError, match=r"^TEXT_FILES={.*} is what 'text_files_span_corruption' re"
    ):
        preflight(docs, ["train"])
