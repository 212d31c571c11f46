"""TASK_FILES and TASK_FIELDS: a task of one's own from files, mixtures, and what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from switchx import storage
from switchx.data import check_settings, eval_batches, preflight, train_stream, vocabulary
from switchx.data.streamed import pipeline, position
from switchx.data.tasks import lookup, table_files, task_files
from switchx.data.tasks.table_fields import Field, Places
from switchx.errors import UserError

from ..conftest import digest, docs_config
from .pieces import model_with
from .sets import SETS, write_json, write_parquet

ROWS = [
    {"q": f"what is {n}?", "about": {"lines": ["it", str(n)]}, "a": [f"{n}", f"no {n}"], "n": n}
    for n in range(7)
]
FIELDS = {"inputs": "{q} of: {about.lines}", "targets": "a"}
LENGTHS = {"inputs": 64, "targets": 32}


@pytest.fixture
def own(tmp_path):
    """The config of a task of rows of one's own; the validation split is JSON lines."""
    files = {
        "train": write_parquet(tmp_path / "train-0.parquet", ROWS),
        "validation": write_json(tmp_path / "dev.jsonl", ROWS),
    }
    return config_of("task_files", task_files=files, task_fields=FIELDS, task_metrics=("squad",))


def config_of(task, **changes):
    values = {"vocabulary": "bytes", "feature_lengths": LENGTHS, "batch_size": 7, **changes}
    return docs_config(mixture_or_task_name=task, **values)


def texts(batch, config):
    words = vocabulary(config)
    sides = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    return [tuple(map(words.decode, pair)) for pair in zip(*sides, strict=True)]


def test_a_task_of_ones_own(own):
    preflight(own)
    expected = [(f"what is {n}? of: it, {n}", f"{n}") for n in range(7)]
    (batch,) = eval_batches(own)
    assert texts(batch, own) == expected
    assert set(texts(next(train_stream(own)), own)) <= set(expected)
    task = lookup.find_provider(own)
    assert task.num_input_examples("train") == task.num_input_examples("validation") == 7
    row = {"answers": np.array([b"3", b"no 3"], object)}
    target = task.postprocess_fn("3", example=row, is_target=True)
    assert task.metric_fns[0]([target], ["no 3"])["em"] == 100


def test_text_of_a_table_makes_no_control_id(own, tmp_path):
    (tmp_path / "m.model").write_bytes(
        model_with(
            vocab_size=400,
            byte_fallback=True,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            user_defined_symbols=["</s>"],
        )
    )
    text = "some <extra_id_0> and</s> <pad> more<extra_id_3>"
    write_json(tmp_path / "dev.jsonl", [{**ROWS[0], "q": text, "a": [text]}])
    fields = {"inputs": "q", "targets": "a"}
    vocabulary_file = str(tmp_path / "m.model")
    config = dataclasses.replace(own, task_fields=fields, vocabulary=vocabulary_file, pack=False)
    config = dataclasses.replace(config, feature_lengths={"inputs": 90, "targets": 90})
    batch = next(iter(eval_batches(config)))
    words, inputs = vocabulary(config), np.trim_zeros(batch["encoder_input_tokens"][0])
    assert inputs.tolist() == [*words.encode(text), words.eos_id]
    assert not {words.sentinel_id(i) for i in range(100)} & set(inputs.tolist())
    assert texts(batch, config)[0] == (text, text)


def test_a_stream_goes_on_from_its_position(own):
    own = dataclasses.replace(own, batch_size=2)
    stream = train_stream(own)
    next(stream)
    state = stream.state()
    after = [digest(next(stream)) for _ in range(4)]
    resumed = train_stream(own)
    resumed.restore(state)
    assert [digest(next(resumed)) for _ in range(4)] == after
    other = dataclasses.replace(own, task_fields={**FIELDS, "inputs": "q"})
    with pytest.raises(UserError, match=r"TASK_FIELDS=.*RESET_DATA"):
        train_stream(other).restore(state)


@pytest.mark.parametrize("split", ["train", "validation"])  # Parquet and JSON lines
def test_reading_goes_on_behind_the_row_of_a_position(own, split, tmp_path):
    """Without a shuffle in between, of more rows than TensorFlow reads ahead and saves."""
    many = [{**row, "q": f"what is {n}?"} for n in range(300) for row in ROWS[:1]]
    write_parquet(tmp_path / "train-0.parquet", many)
    write_json(tmp_path / "dev.jsonl", many)

    def begun():
        rows = task_files.own_source(own).get_dataset(split, shuffle=False)
        inputs = rows.map(lambda row: row["inputs"])
        iterator = iter(inputs.with_options(pipeline.reproducible()))
        return iterator, tf.train.Checkpoint(iterator=iterator)

    iterator, checkpoint = begun()
    for _ in range(3):
        next(iterator)
    saved = checkpoint.write(str(tmp_path / "position"))
    resumed, checkpoint = begun()
    checkpoint.read(saved).assert_consumed()
    left = [text.numpy().decode() for text in resumed]
    assert left == [f"what is {n}? of: it, 0" for n in range(3, 300)]


def test_a_position_of_other_files_is_refused(own, tmp_path):
    saved = position.source_settings(own)
    write_parquet(tmp_path / "train-0.parquet", ROWS[:5])
    with pytest.raises(UserError, match=r"TASK_FILES=.*which held something else"):
        position.check_settings(saved, position.source_settings(own))


def test_a_mixture_reads_the_files_that_are_there(tmp_path, capsys):
    """Each task from its set's folder; a set without files is named, one for tests alone is not."""
    for of in ("cola", "rte"):
        (tmp_path / of).mkdir()
    write_parquet(tmp_path / "cola" / "train.parquet", SETS["glue_cola_v002"].published)
    write_parquet(tmp_path / "cola" / "validation.parquet", SETS["glue_cola_v002"].published)
    rows = [{"sentence1": "One.", "sentence2": "Two.", "label": "entailment", "idx": 0}]
    write_json(tmp_path / "rte" / "validation.jsonl", rows)
    files = {split: str(tmp_path / "{config}" / f"{split}.*") for split in ("train", "validation")}
    config = config_of("glue_v002_proportional", task_files=files)
    mixture = lookup.find_provider(config)
    assert [(task.name, sorted(task.splits)) for task in mixture.tasks] == [
        ("glue_cola_v002", ["train", "validation"]),
        ("glue_rte_v002", ["validation"]),
    ]
    err = capsys.readouterr().err
    assert "TASK_FILES has no files for glue_mnli_matched_v002, glue_mnli_mismatched_v002" in err
    assert "glue_ax" not in err
    assert mixture.get_rate(mixture.tasks[0]) == 8551
    with pytest.raises(UserError, match=r"'glue_v002_proportional' is a mixture: put {config}"):
        lookup.find_provider(dataclasses.replace(config, task_files={"train": "train.*"}))
    absent = {"train": str(tmp_path / "{config}" / "absent")}
    with pytest.raises(UserError, match=r"matches no file.*'hf://datasets/nyu-mll/glue/ax/"):
        lookup.find_provider(dataclasses.replace(config, task_files=absent))


SQUAD = "squad_v010_allanswers"
MISTAKES = {
    "none": (
        config_of("task_files"),
        "MIXTURE_OR_TASK_NAME='task_files' reads files, and TASK_FILES is not set",
    ),
    "fields alone": (
        config_of(SQUAD, task_fields={"context": "text"}),
        "TASK_FIELDS={'context': 'text'} reads files, and TASK_FILES is not set",
    ),
    "no validation": (
        config_of(SQUAD, task_files={"train": "a"}),
        "TASK_FILES={'train': 'a'} names no files for 'validation'",
    ),
    "no dict": (config_of(SQUAD, task_files="a*"), "TASK_FILES='a\\*' is no dict of texts"),
    "metrics of another": (
        config_of(SQUAD, task_metrics=("rouge",)),
        "TASK_METRICS=\\('rouge',\\) is for MIXTURE_OR_TASK_NAME='task_files'",
    ),
    "no metric": (
        config_of("task_files", task_metrics=("f1",)),
        "names 'f1': name some of 'accuracy', 'bleu'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_settings_that_do_not_fit(mistake):
    config, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence):
        check_settings(config)


def test_a_task_that_reads_no_dataset(own):
    config = dataclasses.replace(own, mixture_or_task_name="python_docs_span_corruption")
    with pytest.raises(UserError, match="takes the place of a TFDS dataset, and the task 'python"):
        lookup.find_provider(config)


def test_files_that_are_not_there(own, tmp_path):
    squad = dataclasses.replace(own, mixture_or_task_name=SQUAD, task_fields=None, task_metrics=())
    absent = dataclasses.replace(squad, task_files=dict.fromkeys(own.task_files, "absent*"))
    with pytest.raises(
        UserError,
        match=r"TASK_FILES\['train'\]='absent\*' matches no file: .* published as "
        r"'hf://datasets/rajpurkar/squad/plain_text/\*.parquet'",
    ):
        preflight(absent)
    folder = dataclasses.replace(squad, task_files=dict.fromkeys(own.task_files, str(tmp_path)))
    with pytest.raises(UserError, match=r"is a folder: give a glob of its files"):
        preflight(folder)
    with pytest.raises(UserError, match=r"row 1 of .*parquet', which has no 'context'; its fields"):
        preflight(squad)
    with pytest.raises(UserError, match=r"`tfds build squad/v1.1` makes it\), or the published"):
        preflight(dataclasses.replace(squad, task_files=None, tfds_data_dir=str(tmp_path)))
    glue = {"mixture_or_task_name": "glue_cola_v002", "task_files": None}
    with pytest.raises(UserError, match=r"no TFDS of today makes it, but 2.0.0: 'glue_cola_v200'"):
        preflight(dataclasses.replace(squad, **glue, tfds_data_dir=str(tmp_path)))


def test_a_row_that_is_wrong_stops_training_with_one_sentence(own, tmp_path):
    bad = [*ROWS[:3], {**ROWS[3], "a": [4, None]}]
    files = {**own.task_files, "train": write_json(tmp_path / "bad.jsonl", bad)}
    stream = train_stream(dataclasses.replace(own, task_files=files))
    sentence = r"TASK_FILES\['train'\] leads to line 4 of '.*bad.jsonl', whose 'a' for 'targets' is"
    with pytest.raises(UserError, match=rf"{sentence} \[4, None\] and no list of text"):
        next(stream)


def place(row, name, field, given=None, known=None):
    places = Places({name: field}, given or {}, known or {}, "TASK_FILES")
    return places.values(table_files.Row("line 1", row, tuple(row))).get(name, "left out")


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        (True, Field("label", labels=("False", "True")), 1),
        ("neutral", Field("label", labels=("e", "neutral")), 1),
        ("2", Field("label", labels=("A", "B"), also=(("2", "B"),)), 1),
        ("", Field("label", labels=("A",)), -1),
        (None, Field("label", labels=("A",)), -1),
        (3.0, Field("integer"), 3),
        (3, Field("number"), 3.0),
        (3, Field("text"), "3"),
        ("one", Field("text", many=True), ["one"]),
        ([], Field("text", many=True), []),
    ],
)
def test_a_value_of_each_kind(value, field, expected):
    assert place({"x": value}, "x", field) == expected


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("C", Field("label", labels=("A", "B"))),
        (2, Field("label", labels=("A", "B"))),
        (1.5, Field("integer")),
        (float("nan"), Field("integer")),
        ("1", Field("number")),
        (None, Field("text")),
        (["a"], Field("text")),
        ([["a"]], Field("text", many=True)),
        ({"a": 1}, Field("text")),
    ],
)
def test_a_value_of_another_kind(value, field):
    with pytest.raises(UserError, match=r"line 1, whose 'x' is .* and no .*: mend the file"):
        place({"x": value}, "x", field)


def test_where_a_field_is_found():
    text, texts = Field("text"), Field("text", many=True)
    assert place({"a": {"b": "c"}}, "x", text, {"x": "a.b"}) == "c"
    assert place({"a.b": "c"}, "x", text, {"x": "a.b"}) == "c"
    assert place({"a": [{"b": "c"}, {"b": "d"}]}, "x", texts, {"x": "a.b"}) == ["c", "d"]
    assert place({"a": {"b": ["c", "d"]}}, "a/b", texts) == ["c", "d"]
    assert place({"old": "c"}, "new", text, known={"new": ["old"]}) == "c"
    assert place({"new": "d"}, "new", text, known={"new": ["old"]}) == "d"
    assert place({"a": 1}, "x", text, {"x": "{a} and {a}"}) == "1 and 1"
    assert place({}, "x", Field("text", optional=True)) == "left out"
    with pytest.raises(UserError, match=r"has no '{a} and {b}' for 'x'; its fields are 'a'"):
        place({"a": 1}, "x", text, {"x": "{a} and {b}"})


FOREIGN = {
    "cut": (b"PAR1" + b"\0" * 40, r"'.*x', a Parquet file that cannot be read \("),
    "text": (b"a,b\n1,2\n", r"line 1 of '.*x', which is no JSON object \('a,b'\): give JSON lines"),
    "array": (b'[{"a": 1}, 7]', r"element 2 of '.*x', which is no JSON object \('7'\)"),
    "number": (b"\n7\n", r"line 2 of '.*x', which is no JSON object \('7'\)"),
    "arrow": (b"ARROW1\0\0", "'.*x', which is an Arrow file: give it as Parquet or JSON lines"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind, tmp_path):
    content, sentence = FOREIGN[kind]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=rf"^TASK_FILES leads to {sentence}"):
        list(table_files.rows(str(tmp_path / "x"), "TASK_FILES"))


def test_rows_in_a_bucket(gs, tmp_path):
    """The same as of a file here, in parts asked for by their place."""
    rows = [{"text": str(n) * 1000, "other": n} for n in range(300)]
    write_parquet(tmp_path / "rows.parquet", rows)
    write_json(tmp_path / "rows.jsonl", rows)
    for name in ("rows.parquet", "rows.jsonl"):
        url = f"{gs.folder()}/{name}"
        storage.write_whole(url, (tmp_path / name).read_bytes())
        assert [row.values for row in table_files.rows(url, "TASK_FILES")] == rows
        assert table_files.count(url, "TASK_FILES") == 300
        texts = table_files.rows(url, "TASK_FILES", ["text"])
        assert [row.values["text"] for row in texts] == [row["text"] for row in rows]
        with pytest.raises(UserError, match=r"TASK_FILES leads to '.*absent', which can"):
            list(table_files.rows(f"{url}.absent", "TASK_FILES"))
