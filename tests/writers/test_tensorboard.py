"""Event files, as TensorFlow reads them."""

import math

import numpy as np
import pytest
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from switchx.writers import Writers, tensorboard
from tests.writers.rows import CONFIGURATION, NAMED, SETTINGS, events, facts, png, row, values


def write(folder, rows, begin=0, status="finished"):
    writers = Writers(facts(folder), ["tensorboard"])
    writers.begin(begin, [])
    for one in rows:
        writers.write(one)
    writers.close(status)


def test_scalars_of_rows_and_layers(tmp_path):
    write(tmp_path, [row(10, loss=3.0), row(10, "validation", loss=None)])
    train = values(tmp_path, "train")
    shown = {
        tag: (step, value.simple_value)
        for tag, (step, value) in train.items()
        if not value.HasField("histo")
    }
    assert shown == {tag: (10, value) for tag, value in {"loss": 3.0, **NAMED}.items()}
    assert math.isnan(values(tmp_path, "validation")["loss"][1].simple_value)


def test_loads_are_histograms_of_even_shares(tmp_path):
    loads = np.random.default_rng(0).dirichlet(np.ones(16))
    write(tmp_path, [{**row(10), "load": [loads.tolist(), [None] * 16]}])
    found = values(tmp_path, "train")
    assert "switch/decoder_1/load" not in found  # not finite
    histogram = found["switch/encoder_1/load"][1].histo
    shares = loads * 16
    assert (histogram.min, histogram.max, histogram.num) == (shares.min(), shares.max(), 16)
    assert histogram.sum == pytest.approx(16)
    assert histogram.sum_squares == pytest.approx((shares**2).sum())
    # A bin holds what lies behind the limit before it, up to its own.
    limits, counts = np.array(histogram.bucket_limit), np.array(histogram.bucket)
    assert len(limits) == len(counts)
    below = [(shares < limit).sum() for limit in limits[:-1]]
    np.testing.assert_array_equal(np.cumsum(counts), [*below, 16])


def test_what_is_of_the_whole_run(tmp_path):
    writers = Writers(facts(tmp_path), ["tensorboard"])
    writers.begin(0, [])
    writers.picture(30, "loss", png())
    writers.text(30, "samples", "a ____ b : c | d\n*no* markup")
    writers.close("failed")
    found = values(tmp_path)
    step, image = found["loss"]
    assert (step, image.image.width, image.image.height) == (30, 3, 2)
    assert image.image.encoded_image_string == png()
    texts = {}
    for name in ("samples", "configuration"):
        value = found[f"{name}/text_summary"][1]
        assert value.metadata.plugin_data.plugin_name == "text"
        texts[name] = value.tensor.string_val[0].decode()
    assert texts["samples"] == "    a ____ b : c | d\n    *no* markup"
    assert texts["configuration"].replace("    ", "") == CONFIGURATION.rstrip()


def test_settings_are_hyperparameters(tmp_path):
    write(tmp_path, [], status="failed")
    plugin = {}
    for tag, (_, value) in values(tmp_path).items():
        if value.metadata.plugin_data.plugin_name == "hparams":
            name = tag.removeprefix("_hparams_/")
            plugin[name] = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    start = plugin["session_start_info"].session_start_info.hparams
    assert {name: getattr(v, v.WhichOneof("kind")) for name, v in start.items()} == SETTINGS
    experiment = plugin["experiment"].experiment
    kinds = {info.name: info.type for info in experiment.hparam_infos}
    assert kinds == {"TRAIN_STEPS": 3, "LEARNING_RATE": 3, "OPTIMIZER": 1, "PACK": 2}
    (metric,) = experiment.metric_infos
    assert (metric.name.group, metric.name.tag) == ("validation", "loss")
    assert plugin["session_end_info"].session_end_info.status == 2  # STATUS_FAILURE


def test_a_resume_and_a_rollback_make_it_forget(tmp_path):
    write(tmp_path, [row(step) for step in (10, 20, 30)])
    writers = Writers(facts(tmp_path), ["tensorboard"])
    writers.begin(20, [])
    writers.write(row(30, loss=5.0))
    writers.begin(10, [])
    writers.write(row(20, loss=6.0))
    writers.close("finished")
    found, shown = events(tmp_path, "train"), {}
    assert [event.step for event in found if event.HasField("session_log")] == [0, 21, 11]
    for event in found:
        if event.HasField("session_log"):  # all of this step and behind it is left out
            shown = {step: loss for step, loss in shown.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == "loss":
                shown[event.step] = value.simple_value
    assert shown == {10: 1.0, 20: 6.0}


def test_a_full_file_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "_FULL", 2000)
    write(tmp_path, [row(step) for step in range(10)])
    assert len(list((tmp_path / "tensorboard/train").iterdir())) > 2
    found = events(tmp_path, "train")
    assert [e.step for e in found if e.HasField("summary")] == list(range(10))
    assert [e.step for e in found if e.HasField("session_log")] == [0]


def test_what_cannot_be_written_is_said_once(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file where its folder should be")
    write(tmp_path, [row(10), row(20)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("switchx: the metric writer tensorboard is off, and the run goes on (")
