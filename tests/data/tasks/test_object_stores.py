"""JSON lines and vocabularies at gs:// and s3://: the same rows as from this machine."""

import dataclasses
from pathlib import Path

import pytest

from switchx import data, storage
from switchx.data import eval_batches, vocabulary
from switchx.errors import UserError

from ..conftest import digest, docs_config, record, sentences, write_lines

ODD = "a b/ü#50%41"


@pytest.fixture(scope="module")
def local(tmp_path_factory, t5_model):
    """A folder of two shards to train on, one to validate on, and a vocabulary."""
    folder = tmp_path_factory.mktemp("local")
    for number in range(2):
        lines = map(record, sentences(40, seed=number))
        write_lines(folder / f"train-{number}.json.gz", lines)
    write_lines(folder / "validation [1].json", map(record, sentences(40, seed=9)))
    (folder / "own.model").write_bytes(Path(t5_model).read_bytes())
    return folder


def config(folder, **changes):
    return docs_config(
        mixture_or_task_name="c4_json_span_corruption",
        json_train_glob=f"{folder}/train-*.json.gz",
        json_validation_glob=f"{folder}/validation [1].json",
        vocabulary=f"{folder}/own.model",
        **changes,
    )


def rows(config):
    """Digests of the batches to evaluate on, and of the first to train on."""
    stream = data.train_stream(config)
    found = list(map(digest, eval_batches(config))), [digest(next(stream)) for _ in range(3)]
    stream.close()
    return found


@pytest.fixture(scope="module")
def expected(local):
    return rows(config(local))


def test_rows_are_those_of_this_machine(store, local, expected, tmp_path):
    folder = f"{store.folder()}/{ODD}"
    for file in local.iterdir():
        storage.write_whole(f"{folder}/{file.name}", file.read_bytes())
    there = config(folder, cache_dir=str(tmp_path))
    data.check_settings(there)
    assert vocabulary(there).digest == vocabulary(config(local)).digest
    assert rows(there) == expected


@pytest.mark.parametrize(
    ("status", "says"), [(401, "no valid credentials: for gs://"), (403, "permission denied")]
)
def test_data_that_may_not_be_read(gs, status, says):
    there = config(gs.folder())
    gs.choose = lambda method, path: status
    with pytest.raises(UserError, match=rf"^VOCABULARY='.*' leads to .*own.model.* \({says}"):
        data.check_settings(there)
    there = dataclasses.replace(there, vocabulary="bytes")
    with pytest.raises(UserError, match=rf"^C4_JSON_TRAIN leads to .*train-.* \({says}"):
        data.check_settings(there)


def test_data_that_is_not_there(gs):
    missing = config("gs://no-such-bucket/a")
    with pytest.raises(UserError, match=r"^VOCABULARY='.*' leads to 'gs://no-such-bucket/a/own"):
        vocabulary(missing)
    with pytest.raises(UserError, match=r"^VOCABULARY='gcs2://x/y' has a scheme that is not known"):
        vocabulary(docs_config(vocabulary="gcs2://x/y"))
