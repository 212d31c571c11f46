"""What `switchx train` and `switchx eval` hand on, and what they show at the end."""

import json
import signal
import types

import numpy as np
import pytest

from switchx import data, training
from switchx.evaluation import examples
from switchx.training import TrainResult

VALUES = {"loss": 2.5, "unigram_entropy": 6.25, "accuracy": 0.5}
LOAD = np.array([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])


@pytest.fixture
def calls(monkeypatch):
    """Replaces the floors below by functions that note how they were called."""
    calls = {}

    def train(run, model_dir, make_stream, make_eval_batches, resolved_config, fingerprint, *more):
        calls["train"] = (run, model_dir, resolved_config, fingerprint)
        assert more == ("", {})  # no other hosts, and no task to evaluate alone
        calls["stream"], calls["eval_batches"] = make_stream([0]), make_eval_batches()
        return calls["result"]

    def evaluate(run, model_dir, make_batches, step, make_task_batches):
        assert not make_task_batches
        calls["evaluate"] = (run, model_dir, make_batches(), step)
        return {"step": 1000, **VALUES, **calls.get("of tasks", {})}

    calls["result"] = TrainResult(10, None, VALUES, LOAD, ["runs/quickstart/loss.png"])
    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "evaluate", evaluate)
    monkeypatch.setattr(data, "preflight", lambda config: calls.update(preflight=config))
    monkeypatch.setattr(data, "train_stream", lambda config, shards: ("stream", config))
    monkeypatch.setattr(data, "eval_batches", lambda config: ("batches", config))
    vocabulary = types.SimpleNamespace(fingerprint="abc")
    monkeypatch.setattr(data, "vocabulary", lambda config: vocabulary)
    blank = examples.Blank("returns the", "size", "shape", "of it")
    monkeypatch.setattr(examples, "fill", lambda settings, rows, per_row: [blank])
    return calls


def test_train_hands_on_the_settings(command, calls):
    outcome = command("train", "--gin.BATCH_SIZE=32", "--model_dir=here")
    assert outcome.status == 0, outcome.err
    run, model_dir, resolved, fingerprint = calls["train"]
    assert (run.batch.batch_size, model_dir, fingerprint) == (32, "here", "abc")
    assert "BATCH_SIZE = 32" in resolved
    config = calls["preflight"]
    assert config.batch_size == 32
    assert calls["stream"] == ("stream", config)
    assert calls["eval_batches"] == ("batches", config)


def test_train_shows_what_it_made(command, calls):
    shown = command("train", "--gin.BATCH_SIZE=32").out
    for part in ("2.5000", "6.2500", "50.0%", "2 dead", "runs/quickstart/loss.png", "size | shape"):
        assert part in shown


def test_a_dense_model_shows_no_experts(command, calls):
    calls["result"] = TrainResult(10, None, VALUES, None, [])
    assert "expert" not in command("train", "--gin.BATCH_SIZE=32").out


def test_a_stopped_run_ends_with_the_signals_status(command, calls):
    calls["result"] = TrainResult(5, signal.SIGTERM, {}, None, [])
    assert command("train", "--gin.BATCH_SIZE=32").status == 128 + signal.SIGTERM


def test_eval(command, calls, tmp_path):
    command("train", "--gin.BATCH_SIZE=32", "--model_dir=here")
    run, _, resolved, _ = calls["train"]
    (tmp_path / "here/config.gin").write_text(resolved)

    outcome = command("eval", "--model_dir=here", "--step=1000")
    assert outcome.status == 0, outcome.err
    assert calls["evaluate"] == (run, "here", ("batches", calls["preflight"]), 1000)
    assert "unigram_entropy  6.2500\n" in outcome.out
    assert "step             1,000\n" in outcome.out
    assert json.loads(command("eval", "--model_dir=here", "--json").out)["loss"] == 2.5


def test_eval_shows_a_table_of_tasks(command, calls, tmp_path):
    command("train", "--gin.BATCH_SIZE=32", "--model_dir=here")
    (tmp_path / "here/config.gin").write_text(calls["train"][2])
    values = {**VALUES, "perplexity": 12.1825}
    calls["of tasks"] = {"tasks": {"mc4.en": values, "mc4.zh-Latn": {**values, "loss": 3.25}}}
    assert command("eval", "--model_dir=here").out.splitlines()[-4:] == [
        "",
        "task                    loss         accuracy       perplexity  unigram_entropy",
        "mc4.en                2.5000           0.5000          12.1825           6.2500",
        "mc4.zh-Latn           3.2500           0.5000          12.1825           6.2500",
    ]
