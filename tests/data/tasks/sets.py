"""A few rows of the paper's data sets, as they are published and as TFDS has them.

`published` is what the Parquet files hold; `tfds` says what TFDS has otherwise.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet


class Set(NamedTuple):
    """A data set.

    Attributes:
      dataset: as TFDS names it, with the version that its task reads.
      published: its rows.
      tfds: fields of all its rows that TFDS has and the files have not, or otherwise.
      renamed: fields of other names in TFDS.
    """

    dataset: str
    published: list[dict[str, Any]]
    tfds: dict[str, Any] = {}  # noqa: RUF012
    renamed: dict[str, str] = {}  # noqa: RUF012


_COLA = [
    {"sentence": "The book was by John written.", "label": 0, "idx": 0},
    {"sentence": "Books were sent to each other.", "label": 1, "idx": 1},
    {"sentence": "Nobody knows.", "label": -1, "idx": 2},
]
_CHOICES = {"text": ["Sleet", "Hail", "Sun"], "label": ["1", "2", "3"]}
SETS = {
    "glue_cola_v002": Set("glue/cola:1.0.0", _COLA),
    "glue_cola_v200": Set("glue/cola:2.0.0", _COLA),
    "super_glue_multirc_v102": Set(
        "super_glue/multirc:1.0.2",
        [
            {
                "paragraph": "<b>One:</b> She left.<br>",
                "question": "Who left?",
                "answer": answer,
                "idx": {"paragraph": 7, "question": 3, "answer": number},
                "label": number,
            }
            for number, answer in enumerate(["He", "She"])
        ],
    ),
    "super_glue_record_v102": Set(
        "super_glue/record:1.0.2",
        [
            {
                "passage": "Ann met Bob.\n@highlight\nThey talked.",
                "query": "@placeholder met Bob.",
                "entities": ["Ann", "Bob"],
                "answers": ["Ann"],
                "idx": {"passage": 1, "query": 2},
            }
        ],
    ),
    "squad_v010_allanswers": Set(
        "squad/v1.1:3.0.0",
        [
            {
                "id": "5733be28",
                "title": "Notre_Dame",
                "context": "In 1858 she appeared, in Lourdes.",
                "question": "Where?",
                "answers": {"text": ["Lourdes", "in Lourdes"], "answer_start": [25, 22]},
            }
        ],
    ),
    "cnn_dailymail_v002": Set(
        "cnn_dailymail:3.4.0",
        [{"article": "A long article.", "highlights": "Short .\nShorter .", "id": "f0"}],
        tfds={"publisher": ""},
    ),
    "xsum_v110": Set("xsum:1.1.0", [{"document": "All of it.", "summary": "A line.", "id": "3"}]),
    "anli_r3_v010": Set(
        "anli/r3:0.1.0",
        [
            {"uid": "1", "premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
            {"uid": "2", "premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
        ],
        renamed={"premise": "context"},
    ),
    "winogrande_xl_v120": Set(
        "winogrande:1.2.0",
        [
            {"sentence": "_ won.", "option1": "Ian", "option2": "Dennis", "answer": "2"},
            {"sentence": "_ lost.", "option1": "Ian", "option2": "Dennis", "answer": ""},
        ],
        renamed={"answer": "label"},
    ),
    "arc_easy_v100": Set(
        "ai2_arc/ARC-Easy:1.0.0",
        [{"id": "M1", "question": "Which is Ice?", "choices": _CHOICES, "answerKey": "2"}],
        tfds={"choices": {**_CHOICES, "label": ["A", "B", "C"]}, "answerKey": "B"},
    ),
    "natural_questions_open": Set(
        "natural_questions_open:1.0.0",
        [{"question": "where is it", "answer": ["London", "Greater London"]}],
    ),
    "web_questions_open": Set(
        "web_questions:1.0.0",
        [{"url": "u", "question": "who is it?", "answers": ["Ann"]}],
    ),
    "trivia_qa_open": Set(
        "trivia_qa/unfiltered.nocontext:1.1.0",
        [
            {
                "question": "Who was it?",
                "question_id": "tc_1",
                "entity_pages": {"title": []},
                "answer": {"value": "Ann", "aliases": ["Anna", "Annie"], "type": "X"},
            }
        ],
    ),
}


def tfds_rows(of: Set) -> list[dict[str, Any]]:
    """A set's rows as TFDS has them."""
    return [
        {of.renamed.get(name, name): value for name, value in {**row, **of.tfds}.items()}
        for row in of.published
    ]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes a Parquet file; returns its path."""
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def write_json(path: Path, rows: list[dict[str, Any]]) -> str:
    """Writes JSON lines; returns their path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_tfds(root: Path, dataset: str, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Writes a folder as TFDS prepares it, with the features of its builder of today."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    name, version = dataset.split(":")
    folder = root / name / version
    folder.mkdir(parents=True)
    features = tfds.builder(name).info.features
    template = tfds.core.ShardedFileTemplate(
        dataset_name=name.split("/")[0], data_dir=folder, filetype_suffix="tfrecord"
    )
    infos = []
    for split, rows in splits.items():
        path = template.replace(split=split).sharded_filepath(shard_index=0, num_shards=1)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in rows:
                example = features.encode_example(_complete(features, row))
                writer.write(features.serialize_example(example))
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(rows)], num_bytes=1, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, filename_template=template
    )


def _complete(features: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A row with every feature, and no other: what is not there is empty."""
    import tensorflow_datasets as tfds

    whole = {}
    for name, feature in features.items():
        value = row.get(name)
        if isinstance(feature, tfds.features.FeaturesDict):
            value = _complete(feature, value or {})
        elif isinstance(feature, tfds.features.Sequence) and hasattr(feature.feature, "items"):
            value = {part: (value or {}).get(part, []) for part in feature.feature}
        elif isinstance(feature, tfds.features.ClassLabel) and value in ("", None):
            value = -1
        elif value is None:
            value = [] if isinstance(feature, tfds.features.Sequence) else ""
        whole[name] = value
    return whole
