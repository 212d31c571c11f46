"""Pictures are drawn from metrics alone. How they look is for a person to judge."""

import numpy as np
import pytest

from switchx.reports.pictures import _loss_figure, curve, draw, smooth, thin
from switchx.training.metrics import MetricWriter, layer_names
from tests.helpers import tiny_config

PNG = b"\x89PNG\r\n\x1a\n"


def make_run(model_dir, layers, experts, rows, dropped=True):
    rng = np.random.default_rng(0)
    writer = MetricWriter(model_dir, 0)
    for step in range(1, rows + 1):
        load = rng.dirichlet(np.ones(experts), layers)
        load[:, :1] = 0.0  # a dead expert
        arrays = {"load": load} if layers else {}
        if layers and dropped:
            arrays["dropped_fraction"] = rng.random(layers)
        loss = 9.0 / step if step > 1 else float("nan")
        writer.write(step, "train", {"loss": loss}, arrays)
    writer.write(rows, "validation", {"loss": 1.0, "unigram_entropy": 6.0})
    writer.close()


@pytest.mark.parametrize(
    ("layers", "experts", "rows"),
    [(0, 0, 5), (1, 1, 1), (1, 2, 1), (4, 8, 3), (4, 8, 100), (2, 300, 2)],
)
def test_pictures_are_drawn(tmp_path, layers, experts, rows):
    make_run(tmp_path, layers, experts, rows)
    names = layer_names(tiny_config(num_layers=4)) if layers == 4 else ()
    drawn = draw(tmp_path, names)
    assert [path.name for path in drawn] == ["loss.png", "expert_load.png"][: 1 + (experts > 1)]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_drawn_without_dropped_fractions(tmp_path):
    make_run(tmp_path, 2, 4, 3, dropped=False)
    assert len(draw(tmp_path)) == 2


def test_nothing_to_draw(tmp_path):
    assert draw(tmp_path) == []


def test_curve_skips_what_is_missing_and_takes_the_last_of_a_step():
    rows = [
        {"step": 2, "split": "train", "loss": 1.0},
        {"step": 1, "split": "train", "loss": 2.0},
        {"step": 2, "split": "train", "loss": 3.0},
        {"step": 3, "split": "train", "loss": None},
        {"step": 1, "split": "validation", "loss": 9.0},
        {"step": 4, "split": "train"},
    ]
    steps, values = curve(rows, "train", "loss")
    assert steps.tolist() == [1, 2]
    assert values.tolist() == [2.0, 3.0]


def test_the_entropy_drawn_is_that_of_the_whole_validation():
    rows = [
        {"step": 1, "split": split, "loss": 2.0, "unigram_entropy": entropy}
        for split, entropy in (("validation", 6.0), ("validation/one_task", 5.0))
    ]
    _, labels = _loss_figure(rows).axes[0].get_legend_handles_labels()
    assert "unigram entropy of the targets, 6.000" in labels


def test_thin_and_smooth_keep_means():
    array = np.arange(10.0)
    assert thin(array, 5).tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert thin(array, 99).tolist() == array.tolist()
    np.testing.assert_allclose(smooth(array, 3), [0.5, *range(1, 9), 8.5])
    np.testing.assert_allclose(smooth(np.ones(7), 4), 1.0)
