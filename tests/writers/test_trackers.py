"""Trackers hold what metrics.jsonl holds, after a resume and a rollback, read by their own code."""

import json
import os
import struct

import pytest

from switchx.writers import Writers, group
from tests.writers.rows import CONFIGURATION, NAMED, SETTINGS, facts, png, row

NAME = "a run [1] * ä#%41"
TRACKERS = ["wandb", "mlflow", "trackio"]
OFFLINE = ("WANDB_", "MLFLOW_", "TRACKIO_", "HF_")
# What stays of three starts: 10, 20; on behind 20 with 30; back to 10, and 20 again.
EXPECTED = {("train", 10): 1.0, ("validation", 10): 2.0, ("train", 20): 7.0}


@pytest.fixture(scope="module", autouse=True)
def environment():
    """One in which nobody has an account or a server; a loaded machine may take its time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OFFLINE)]:
            patch.delenv(name)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # of this process, which reads
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(group, "PATIENCE", 600)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in all trackers at once."""
    folder = tmp_path_factory.mktemp("runs") / NAME
    _write(folder)
    return folder


def _write(folder):
    said = []
    rows = [row(10), row(10, "validation", 2.0), row(20)]
    first = Writers(facts(folder), TRACKERS)
    first.begin(0, [], said.append)
    for one in rows:
        first.write(one)
    first.close("failed")
    second = Writers(facts(folder), TRACKERS)
    second.begin(20, rows, said.append)
    second.write(row(30, loss=5.0))
    second.begin(10, rows[:2], said.append)
    second.write(row(20, loss=7.0))
    second.picture(20, "loss_curve", png())
    second.text(20, "samples", "a <b> ____")
    second.close("finished")
    assert said == []


def named(figures):
    """The figures of rows under the names of `EXPECTED`, which have to be all."""
    found = {}
    for (split, step), by_name in figures.items():
        found[split, step] = by_name.pop(f"{split}/loss")
        assert by_name == {f"{split}/{name}": value for name, value in NAMED.items()}
    return found


def test_nothing_else_is_written(run):
    assert {path.name for path in run.iterdir()} == {
        "writers.json",
        "wandb",
        "mlruns",
        "mlartifacts",
        "trackio",
    }


def records(path):
    """Those of a .wandb file: its own header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, []
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def test_wandb(run):
    identity = json.loads((run / "writers.json").read_text())["id"]
    (path,) = run.glob("wandb/offline-run-*/*.wandb")  # of the last start alone
    assert path.name == f"run-{identity}.wandb"
    figures, others, config = {}, {}, {}
    for record in records(path):
        if record.HasField("run"):
            assert (record.run.project, record.run.display_name) == ("switchx", NAME)
            config |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        if record.HasField("exit"):
            assert record.exit.exit_code == 0
        step = record.history.step.num
        for item in record.history.item:
            name, *field = item.nested_key or [item.key]
            value = json.loads(item.value_json)
            if field:
                others.setdefault(name, {})[field[0]] = value
            elif "/" in name:
                figures.setdefault((name.split("/")[0], step), {})[name] = value
    assert named(figures) == EXPECTED
    assert SETTINGS.items() <= config.items()
    assert sum(others["train/switch/encoder_1/load"]["values"]) == 2  # experts
    assert (others["loss_curve"]["width"], others["loss_curve"]["height"]) == (3, 2)
    assert (path.parent / "files" / others["loss_curve"]["path"]).is_file()
    assert "a &lt;b&gt; ____" in (path.parent / "files" / others["samples"]["path"]).read_text()
    assert (path.parent / "files/config.gin").read_text() == CONFIGURATION


def test_mlflow(run):
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient((run / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("switchx").experiment_id
    (found,) = client.search_runs([experiment])
    # The first was gone on with behind step 20, and given up by the rollback.
    assert len(client.search_runs([experiment], run_view_type=ViewType.ALL)) == 2
    assert (found.info.run_name, found.info.status) == (NAME, "FINISHED")
    assert found.data.params == {name: str(value) for name, value in SETTINGS.items()}
    figures = {}
    for name in found.data.metrics:
        for figure in client.get_metric_history(found.info.run_id, name):
            assert figure.timestamp == (10**9 + figure.step) * 1000
            split = name.split("/")[0]
            figures.setdefault((split, figure.step), {})[name] = figure.value
    assert named(figures) == EXPECTED
    artifacts = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert artifacts == {"config.gin", "loss_curve.png", "samples-00000020.txt"}


def test_mlflow_of_a_run_that_was_moved(tmp_path):
    """Its store holds the place where pictures go."""
    for step, folder in enumerate((tmp_path / "old", tmp_path / "new")):
        writers = Writers(facts(folder), ["mlflow"])
        writers.begin(step, [row(1)] * step)
        writers.write(row(step + 1))
        writers.picture(step + 1, "loss_curve", png())
        writers.close("finished")
        if step == 0:
            folder.rename(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert len(list((tmp_path / "new/mlartifacts").glob("**/loss_curve.png"))) == 2


def test_trackio(run, monkeypatch):
    import trackio.sqlite_storage as store

    monkeypatch.setattr(store, "TRACKIO_DIR", run / "trackio")
    (name,) = store.SQLiteStorage.get_runs("switchx")
    assert name == f"{NAME}-{json.loads((run / 'writers.json').read_text())['id']}"
    figures, others = {}, {}
    for log in store.SQLiteStorage.get_logs("switchx", name):
        for key, value in log.items():
            if isinstance(value, dict):
                others[key] = value
            elif "/" in key:
                split = key.split("/")[0]
                figures.setdefault((split, log["step"]), {})[key] = value
    assert named(figures) == EXPECTED
    assert sum(others["train/switch/encoder_1/load"]["values"]) == 2  # experts
    assert others["samples"]["_value"] == "```\na <b> ____\n```"
    assert (run / "trackio/media" / others["loss_curve"]["file_path"]).is_file()
    config = store.SQLiteStorage.get_run_config("switchx", name)
    assert SETTINGS.items() <= config.items()
    assert config["config.gin"] == CONFIGURATION
