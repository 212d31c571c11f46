"""What was not finite first in a step: each place where something was put is the one named."""

import json

import jax
import numpy as np
import pytest

from switchx.errors import RunError
from switchx.sharding import make_mesh
from switchx.training import train
from switchx.training.bad_loss import BadLoss
from switchx.training.batches import put_batch
from switchx.training.not_finite import Findings, Inquiry, Part
from switchx.training.state import Setup
from tests.training.helpers import SMALL, TWO_KINDS, Stream, batch, feed, restored, run_config

BAD = BadLoss(3, float("nan"), "is not finite")


class Asked:
    """Two and three layers, the second of each with experts, on eight devices in two parts.

    The norms before attention are frozen, and so have no gradients.
    """

    def __init__(self, directory):
        frozen = ("*/attention_norm/*",)
        sizes = {**TWO_KINDS, "d_model": 32, "d_ff": 32, "num_decoder_layers": 3}
        run = run_config(**sizes, microbatches=2, frozen=frozen)
        self.setup, self.directory = Setup.of(run, make_mesh(run.mesh)), directory
        rng = np.random.default_rng(0)
        self.params = jax.tree.map(
            lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32),
            self.setup.abstract.params,
        )
        self.inquiry = Inquiry(self.setup, directory)

    def __call__(self, change=lambda params, batch: None):
        """The line and the record of a step whose parameters and batch a function has changed."""
        params, rows = jax.tree.map(np.array, self.params), batch(7)
        change(params, rows)
        placed = jax.device_put(params, self.setup.shardings.params)
        line = self.inquiry.look_into(BAD, 5, placed, put_batch(rows, self.setup))
        return line, json.loads((self.directory / "bad_loss.5.json").read_text())


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return Asked(tmp_path_factory.mktemp("asked"))


def wrong(parts):
    return [part["name"] for part in parts if part["not_finite"]]


def layer(params, stack, number):
    """The layers of the whole block, and the decoder's third, which stands by itself."""
    if number == 2:
        return params[stack]["blocks_1"]["layer_0"]
    return params[stack]["blocks"][f"layer_{number}"]


def test_a_finite_step_is_said_to_be_one(asked):
    line, record = asked()
    assert "computed again, all was finite" in line
    assert record["first"] == {"kind": "nothing", "name": ""}
    assert (record["step"], record["batch"], record["loss"]) == (3, 5, None)
    found = record["found"]
    assert len(found["layers"]) == len({part["name"] for part in found["layers"]})
    names = [part["name"] for part in found["layers"]]
    encoder = ["embedding", "0 attention", "0 feed_forward", "0 output"]
    encoder += ["1 attention", "1 router", "1 experts", "1 output", "output"]
    assert names[:9] == [f"encoder {name}" for name in encoder]
    assert "decoder 1 cross_attention" in names
    assert names.index("decoder 2 feed_forward") > names.index("decoder 1 experts")
    assert names[-1] == "logits"
    assert all(part["largest"] > 0 for part in found["layers"] + found["parameters"])
    sizes = {part["name"]: part["largest"] for part in found["parameters"]}
    table = asked.params["embedding"]["table_VD"]
    assert sizes["embedding/table_VD"] == pytest.approx(np.abs(table).max())
    trained = {name for name in sizes if "attention_norm" not in name}
    assert {part["name"] for part in found["gradients"]} == trained < sizes.keys()


def no_number(stack, number, *path):
    def change(params, rows):
        at = layer(params, stack, number)
        for name in path:
            at = at[name]
        at[(0,) * at.ndim] = np.nan

    return change


@pytest.mark.parametrize(
    ("stack", "number", "path", "part"),
    [
        ("encoder", 0, ("attention", "query_DT"), "attention"),
        ("encoder", 1, ("feed_forward", "switch", "router", "kernel_DE"), "router"),
        ("encoder", 1, ("feed_forward", "switch", "experts", "wo_EFD"), "experts"),
        ("decoder", 0, ("cross_attention", "key_DT"), "cross_attention"),
        ("decoder", 0, ("feed_forward", "dense", "wi_DF"), "feed_forward"),
        ("decoder", 2, ("feed_forward", "dense", "wi_DF"), "feed_forward"),
    ],
)
def test_a_parameter_and_the_first_layer_that_it_spoils(stack, number, path, part, asked):
    line, record = asked(no_number(stack, number, *path))
    name = f"{stack} {number} {'/'.join(path)}"
    assert record["first"] == {"kind": "parameter", "name": name}
    assert wrong(record["found"]["parameters"]) == [name]
    assert wrong(record["found"]["layers"])[0] == f"{stack} {number} {part}"
    told = f"the parameter {name} was not finite before the step, and of what was computed"
    assert f"The loss at step 3: {told} {stack} {number} {part}; " in line
    assert line.endswith("bad_loss.5.json has every part")


def test_a_batch(asked):
    def change(params, rows):
        rows["decoder_loss_weights"][3, 0] = np.inf

    line, record = asked(change)
    assert record["first"] == {"kind": "batch", "name": "decoder_loss_weights"}
    assert "the batch's decoder_loss_weights was not finite; " in line
    assert wrong(record["found"]["layers"]) == []


def test_a_layer_of_finite_parameters_that_are_too_large(asked):
    def change(params, rows):
        dense = layer(params, "decoder", 0)["feed_forward"]["dense"]
        dense["wi_DF"] *= np.float32(1e30)
        dense["wo_FD"] *= np.float32(1e30)

    line, record = asked(change)
    assert record["first"] == {"kind": "layer", "name": "decoder 0 feed_forward"}
    assert "the first that was not finite is what decoder 0 feed_forward computed" in line


def test_gradients_whose_norm_overflows(asked):
    """What the layer computes stays as it is."""

    def change(params, rows):
        dense = layer(params, "encoder", 0)["feed_forward"]["dense"]
        dense["wi_DF"] *= np.float32(1e25)
        dense["wo_FD"] *= np.float32(1e-25)

    _, record = asked(change)
    assert record["first"] == {"kind": "norm", "name": "encoder 0 feed_forward/dense/wo_FD"}


def test_the_first_gradient_is_the_one_nearest_to_the_loss(asked):
    _, record = asked(no_number("encoder", 1, "attention", "query_DT"))
    names = [part["name"] for part in record["found"]["gradients"]]
    assert names[0] == "decoder_norm/scale_D"
    assert names.index("decoder 1 feed_forward/switch/experts/wi_EDF") < names.index(
        "decoder 1 cross_attention/key_DT"
    )
    assert names.index("decoder 0 attention/key_DT") < names.index("encoder 1 attention/key_DT")
    assert names[-1] == "embedding/table_VD"
    fine, bad = Part("fine", 0, 1.0), Part("bad", 1, 1.0)
    found = Findings([], [], [], loss=True, norm=False, gradients=[fine, bad])
    assert found.first() == ("gradient", "bad")


@pytest.fixture(scope="module")
def spoiled():
    class Spoiled(Stream):
        """The third batch gives a loss that is not finite."""

        def __next__(self):
            found = super().__next__()
            if self.number == 3:
                found["decoder_loss_weights"] = found["decoder_loss_weights"] * np.nan
            return found

    return feed(Spoiled)


def test_a_run_that_stops_says_what_and_has_the_parameters_before(
    spoiled, tmp_path, one_device, monkeypatch, capfd
):
    """The step after the bad one is on its way by then."""
    seen = []
    look_into = Inquiry.look_into

    def spied(self, bad, drawn, params, batch):
        seen.append(jax.device_get(params))
        return look_into(self, bad, drawn, params, batch)

    monkeypatch.setattr(Inquiry, "look_into", spied)
    run = run_config(**SMALL)
    with pytest.raises(RunError, match=r"The loss at step 3 is not finite .* is of step 2"):
        train(run, str(tmp_path), spoiled, "# none\n")
    said = capfd.readouterr().err
    assert "step 3: the batch's decoder_loss_weights was not finite; " in said
    assert f"{tmp_path}/bad_loss.3.json has every part" in said
    saved = restored(tmp_path, Setup.of(run, make_mesh(run.mesh))).state.params
    jax.tree.map(np.testing.assert_array_equal, seen, [jax.device_get(saved)])


def test_an_inquiry_that_fails_hides_nothing(spoiled, tmp_path, one_device, monkeypatch, capfd):
    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(Inquiry, "_find", fails)
    with pytest.raises(RunError, match="The loss at step 3 is not finite"):
        train(run_config(**SMALL), str(tmp_path), spoiled, "# none\n")
    assert "not finite first in step 3 is unknown: no room" in capfd.readouterr().err
