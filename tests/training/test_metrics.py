"""Rows of metrics: written, read, resumed, turned into rates; peaks."""

import json

import numpy as np
import pytest

from switchx.errors import UserError
from switchx.training.metrics import MetricWriter, Throughput, layer_names
from switchx.training.peak import measured_matmul_rate, peak_flops
from switchx.training.run_reader import metric_rows
from switchx.writers import Writers
from tests.helpers import tiny_config, with_switch


def write(model_dir, steps, start_step=0, loss=1.0):
    writer = MetricWriter(model_dir, start_step)
    for step in steps:
        arrays = {"load": np.array([[0.75, 0.25], [0.5, 0.5]]), "z_loss": np.array([1.0, 2.0])}
        writer.write(step, "train", {"loss": np.float32(loss)}, arrays)
        writer.write(step, "validation", {"loss": loss + 1})
    writer.close()


def test_rows_are_read_as_written(tmp_path):
    write(tmp_path, [10])
    train, validation = metric_rows(tmp_path)
    assert train["step"] == 10
    assert train["split"] == "train"
    assert train["loss"] == 1.0
    assert train["load"] == [[0.75, 0.25], [0.5, 0.5]]
    assert train["z_loss"] == [1.0, 2.0]
    assert validation["split"] == "validation"
    assert validation["loss"] == 2.0
    assert "load" not in validation


def test_float32_is_written_in_its_own_digits(tmp_path):
    write(tmp_path, [1], loss=np.float32(0.1))
    assert '"loss": 0.1,' in (tmp_path / "metrics.jsonl").read_text()


def test_what_is_not_finite_stays_valid_json(tmp_path):
    write(tmp_path, [1], loss=float("nan"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"] is None


def test_resuming_drops_what_came_after(tmp_path):
    write(tmp_path, [10, 20, 30])
    write(tmp_path, [30, 40], start_step=20, loss=5.0)
    steps_losses = [
        (row["step"], row["loss"]) for row in metric_rows(tmp_path) if row["split"] == "train"
    ]
    assert steps_losses == [(10, 1.0), (20, 1.0), (30, 5.0), (40, 5.0)]


class Told:
    """A writer that remembers what it was told."""

    def __init__(self):
        self.begins, self.rows = [], []

    def begin(self, run, step, rows):
        self.begins.append((step, list(rows)))

    def write(self, row):
        self.rows.append(row)

    def close(self, status):
        self.status = status


def test_writers_are_told_what_stands_in_the_file(tmp_path):
    write(tmp_path, [10, 20, 30])
    told = Told()
    with Writers(own=[told]) as writers:
        writer = MetricWriter(tmp_path, 20, writers)
        before = metric_rows(tmp_path)
        writer.write(30, "train", {"loss": 5.0}, {"z_loss": np.array([1.0, 2.0])})
        (written,) = metric_rows(tmp_path)[len(before) :]
        writer.roll_back(35, 10, 2, 9.0)
        writer.write(20, "train", {"loss": 6.0})
        writer.close()
    assert [row["step"] for row in before] == [10, 10, 20, 20]
    assert told.begins == [(20, before), (10, before[:2])]
    assert told.rows[0] == written
    assert [row["step"] for row in told.rows] == [30, 20]
    assert told.status == "finished"


def test_a_fresh_start_begins_an_empty_file(tmp_path):
    write(tmp_path, [0, 10])
    write(tmp_path, [10])
    assert [row["step"] for row in metric_rows(tmp_path)] == [10, 10]


def test_a_torn_last_line_is_left_out_and_then_dropped(tmp_path):
    write(tmp_path, [10])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "spl')
    assert len(metric_rows(tmp_path)) == 2
    write(tmp_path, [20], start_step=10)
    assert [row["step"] for row in metric_rows(tmp_path)] == [10, 10, 20, 20]


def test_damage_elsewhere_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 1"):
        metric_rows(tmp_path)


def test_no_file_no_rows(tmp_path):
    assert metric_rows(tmp_path) == []


def test_layer_names_count_as_the_released_models_do():
    config = tiny_config(num_layers=4)
    assert layer_names(config) == ["encoder 1", "encoder 3", "decoder 1", "decoder 3"]
    assert layer_names(with_switch(tiny_config(), every=1)) == [
        "encoder 0",
        "encoder 1",
        "decoder 0",
        "decoder 1",
    ]
    assert layer_names(tiny_config(switch=None)) == []
    uneven = with_switch(tiny_config(num_layers=5, num_decoder_layers=3), decoder_sparse=(0, 2))
    assert layer_names(uneven) == ["encoder 1", "encoder 3", "decoder 0", "decoder 2"]


def test_layer_names_say_which_part_has_experts():
    attention = with_switch(tiny_config(), experts_in="attention")
    assert layer_names(attention) == ["encoder 1 attention", "decoder 1 attention"]
    assert layer_names(with_switch(tiny_config(), experts_in="both")) == [
        "encoder 1 attention",
        "encoder 1 feed-forward",
        "decoder 1 attention",
        "decoder 1 feed-forward",
    ]


def test_rates():
    rates = Throughput(tokens_per_step=100, flops_per_step=5e9, peak_flops=1e11).over(20, 2.0)
    assert rates == {
        "steps_per_second": 10.0,
        "tokens_per_second": 1000.0,
        "model_flops_per_second": 5e10,
        "utilisation": 0.5,
    }
    assert "utilisation" not in Throughput(100, 5e9).over(20, 2.0)


def test_peaks_by_device_kind():
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("TPU v5p", "bfloat16") == 459e12
    assert peak_flops("TPU v4", "bfloat16") == 275e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989.2e12
    assert peak_flops("NVIDIA H100 NVL", "bfloat16") is None  # slower than the one above
    assert peak_flops("cpu", "float32") is None


def test_this_machine_multiplies():
    assert measured_matmul_rate("float32", seconds=0.05) > 1e8
