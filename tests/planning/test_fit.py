"""The search for the smallest slice, with a stand-in for the compiler."""

import dataclasses

import pytest

from switchx.errors import UserError
from switchx.planning import fit, plan, report
from switchx.planning.chips import CHIPS
from switchx.planning.estimate import Bound
from switchx.planning.likely import Likely
from switchx.planning.topology import Topology, family
from tests.training.helpers import run_config

BOUND = Bound(1.0, 1.0, {"ici": 0.0, "dcn": 0.0}, (), 1.0, "compute", 1.0, 0.5, 1.0)


def small_chips(hbm_bytes):
    chip = dataclasses.replace(CHIPS["v5e"], hbm_bytes=hbm_bytes)
    return [Topology(chip, grid) for grid in ((2, 2), (2, 4), (4, 4))]


class Compiler:
    """Says how much a program takes from its settings alone: remat frees, parts free more."""

    def __init__(self, activations, likely=lambda run: None):
        self.activations, self.likely, self.tried = activations, likely, []

    def __call__(self, run, topology):
        mesh = plan.abstract_mesh(run, topology)
        setup = fit.layout(run, topology)
        held = fit.memory.analytic(setup, {}, topology.chip.hbm_bytes)
        kept = {"none": 4, "dots": 2, "full": 1}[run.model.remat]
        own = kept * self.activations // (mesh.size * run.trainer.microbatches)
        held = dataclasses.replace(held, activations=own)
        self.tried.append((topology.num_chips, run.model.remat, run.trainer.microbatches))
        seconds = 1 / kept + run.mesh.model
        return plan.Plan(
            topology=topology.name,
            chip="v5e",
            run=plan.fingerprint(run),
            chips=topology.num_chips,
            hosts=1,
            slices=1,
            mesh=dict(mesh.shape),
            settings=plan.settings(run),
            memory=held,
            fits=not held.over,
            advice=(),
            collectives=(),
            flops=plan.Flops(1, 1, {}),
            bound=None if held.over else dataclasses.replace(BOUND, seconds=seconds),
            likely=self.likely(run),
            compilation=None,
            notes=(),
        )


def search(run, hbm_bytes, activations, **others):
    compiler = Compiler(activations, **others)
    found = fit.find(run, small_chips(hbm_bytes), compiler, say=lambda _: None)
    return found, compiler


def state_bytes(run, topology):
    """The least that any mesh of the topology leaves on a chip."""
    return min(
        fit.memory.analytic(fit.layout(c, topology), {}, None).total
        for c in fit.candidates(run, topology)
    )


def test_the_first_slice_on_which_anything_fits_is_chosen():
    run = run_config()
    four, eight, _ = small_chips(1)
    between = (state_bytes(run, four) + state_bytes(run, eight)) // 2
    found, compiler = search(run, between, activations=0)
    assert found.best.chips == 8
    assert all(chips == 8 for chips, *_ in compiler.tried)  # what state rules out isn't compiled
    four_chips = [p for p in found.points if p.topology == four.name]
    assert four_chips
    assert all("state and gradients alone" in p.outcome for p in four_chips)


def test_what_fits_is_given_back_its_activations():
    found, compiler = search(run_config(), 10**9, activations=1000)
    assert found.best.settings["REMAT"] == "none"
    assert found.best.mesh["model"] == 1
    assert [remat for _, remat, _ in compiler.tried[:3]] == ["full", "dots", "none"]


def test_what_is_likely_counts_more_than_the_bound():
    """Of the policies the one that the bound has last."""
    slow = {"none": 3.0, "dots": 2.0, "full": 1.0}
    expected = lambda run: Likely(slow[run.model.remat], 0.0, 9.0, 0.0, 0.0)  # noqa: E731
    found, _ = search(run_config(), 10**9, activations=1000, likely=expected)
    assert found.best.settings["REMAT"] == "full"
    assert found.best.seconds == 1


def test_what_does_not_fit_is_computed_in_parts():
    run = run_config(batch=dataclasses.replace(run_config().batch, batch_size=64))
    room = 10**9
    found, compiler = search(run, room, activations=8 * room)
    assert found.best.settings["MICROBATCHES"] == 4
    assert [parts for *_, parts in compiler.tried[:3]] == [1, 2, 4]
    assert found.best.chips == 4


def test_nothing_fits():
    found, compiler = search(run_config(), 1000, activations=0)
    assert found.best is None
    assert not compiler.tried
    assert "nothing fits" in report.fit_text(found)


def test_every_point_is_in_the_report():
    found, _ = search(run_config(), 10**9, activations=1000)
    text, values = report.fit_text(found), report.fit_to_json(found)
    assert len(values["points"]) == len(found.points)
    assert "best: v5e:2x2 --gin.MESH_DATA=" in text
    meshes = list(fit.candidates(run_config(), small_chips(1)[0]))
    tried = {(p.settings["MESH_EXPERT"], p.settings["MESH_MODEL"]) for p in found.points}
    assert tried == {(c.mesh.expert, c.mesh.model) for c in meshes}


def test_a_compiler_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="make install EXTRAS='dev plan'"):
        fit.require_compiler(family("v5e")[0])
