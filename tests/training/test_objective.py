"""The seam of objectives, by one with constants: a step that pulls towards a teacher's answers.

That one whose share is nothing is pretraining, bit for bit, test_distillation holds.
"""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switchx.model import NO_NOISE, Model, Params
from switchx.sharding import MeshConfig, make_mesh
from switchx.training import train
from switchx.training.batches import put_batch
from switchx.training.checkpoints.identity import read_identity
from switchx.training.objectives import OBJECTIVES, Outcome, Pretraining
from switchx.training.placing import abstract_params
from switchx.training.state import Setup
from switchx.training.step import compile_train_step, gradients
from tests.training.helpers import SMALL, batch, checkpoints_of, feed, run_config

DENSE = {**SMALL, "dropout_rate": 0.0, "num_layers": 1}


@dataclasses.dataclass(frozen=True)
class Taught:
    """Pretraining plus `share` times the squared distance to a teacher's logits."""

    pretraining: Pretraining
    share: float

    def abstract_constants(self, mesh: Any) -> Params:
        return abstract_params(self.pretraining.model, mesh)

    def constants(self, mesh: Any) -> Params:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_constants(mesh))
        with jax.set_mesh(mesh):
            return jax.jit(self.pretraining.model.init, out_shardings=shardings)(jax.random.key(9))

    def weight(self, batch: dict[str, Any]) -> jax.Array:
        return self.pretraining.weight(batch)

    def __call__(
        self, params: Any, constants: Any, batch: Any, noise: Any, step: Any = None
    ) -> Outcome:
        outcome = self.pretraining(params, constants, batch, noise)
        distance = jnp.sum(
            self.share * squared_distance(self.pretraining.model, params, constants, batch)
        )
        sums = {**outcome.sums, "objective": outcome.sums["objective"] + distance}
        return dataclasses.replace(outcome, sums={**sums, "distance": distance})


def squared_distance(model: Model, params: Params, teacher: Params, batch: Any) -> jax.Array:
    """Squared, of the logits at each target token that counts."""
    logits = [
        model.bind(each)(
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
            batch["decoder_target_tokens"] > 0,
            NO_NOISE,
        ).logits_BLV
        for each in (params, teacher)
    ]
    return batch["decoder_loss_weights"] * jnp.sum((logits[0] - logits[1]) ** 2, axis=-1)


@pytest.fixture(autouse=True)
def objectives(monkeypatch):
    make = lambda run, model: Taught(Pretraining.of(run, model), 0.1)  # noqa: E731
    monkeypatch.setitem(OBJECTIVES, "taught", make)


def setup_of(objective, devices=1, **changes):
    run = run_config(**{**DENSE, "objective": objective, **changes})
    return Setup.of(run, make_mesh(run.mesh, jax.devices()[:devices]))


@pytest.fixture(scope="module")
def fresh():
    """Of one device, on the host."""
    return jax.device_get(setup_of("pretraining").init())


def gradients_of(setup, fresh):
    with jax.set_mesh(setup.mesh):
        placed = put_batch(batch(0), setup)
        found = jax.jit(lambda *args: gradients(setup, *args))(
            jax.device_put(fresh, setup.shardings), setup.constants, placed
        )
        return jax.device_get(found)


@pytest.fixture(scope="module")
def by_definition(fresh):
    """The gradient by the parameters, of the mean over target tokens, written out."""
    setup = Setup.of(run_config(**DENSE), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    own = Taught(Pretraining.of(setup.run, setup.model), 0.1)
    placed, teacher = put_batch(batch(0), setup), own.constants(setup.mesh)

    def mean(params):
        sums = own.pretraining(params, {}, placed, NO_NOISE).sums
        pull = jnp.sum(squared_distance(setup.model, params, teacher, placed))
        return (sums["objective"] + 0.1 * pull) / jnp.sum(placed["decoder_loss_weights"])

    return jax.device_get(jax.jit(jax.grad(mean))(fresh.params))


@pytest.mark.parametrize(
    ("devices", "changes"),
    [(1, {}), (8, {"mesh": MeshConfig(4, 1, 2), "microbatches": 2})],
    ids=["one device", "mesh and microbatches"],
)
def test_gradients_are_of_the_parameters_alone(by_definition, fresh, devices, changes):
    found, outcome = gradients_of(setup_of("taught", devices, **changes), fresh)
    assert outcome.sums["distance"] > 0
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(by_definition), strict=True
    ):
        close = 1e-5 * np.abs(b).max()
        np.testing.assert_allclose(a, b, 1e-4, close, err_msg=jax.tree_util.keystr(path))


def test_constants_are_neither_donated_nor_changed(fresh):
    setup = setup_of("taught")
    before = jax.device_get(setup.constants)
    state, placed = jax.device_put(fresh, setup.shardings), put_batch(batch(0), setup)
    step = compile_train_step(setup)
    for _ in range(2):
        given, (state, metrics) = state, step(state, placed)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(setup.constants), before)
    assert metrics["sums"]["distance"] > 0


@pytest.mark.usefixtures("one_device")
def test_a_checkpoint_holds_no_constants_and_the_metrics_name_each_sum(fresh, tmp_path):
    run = run_config(**{**DENSE, "objective": "taught", "train_steps": 2})
    assert train(run, tmp_path / "taught", feed()).validation["distance"] > 0
    without = setup_of("pretraining")
    with contextlib.closing(checkpoints_of(tmp_path / "own", without)) as checkpoints:
        checkpoints.save(jax.device_put(fresh, without.shardings), {0: b"0"}, None)
    taught, own = (
        read_identity(tmp_path / of, n)[0]["arrays"] for of, n in (("taught", 2), ("own", 0))
    )
    assert taught.keys() == own.keys()
