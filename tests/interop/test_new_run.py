"""A run directory out of any source: what the next start finds in it."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from switchx.interop.new_run import write_run
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.checkpoints.refusals import check_resume
from switchx.training.state import Setup
from tests.helpers import init, tiny_config
from tests.training import helpers
from tests.training.helpers import run_config


@dataclasses.dataclass
class Made:
    """A source that makes up its numbers, and an optimizer's state on request."""

    params_: Any
    own_state: Any = None
    step: int | None = None
    model_fields: dict[str, Any] = dataclasses.field(default_factory=dict)

    def params(self, abstract: Any) -> Any:
        return jax.tree.map(lambda x, to: jax.device_put(x, to.sharding), self.params_, abstract)

    def opt_state(self, abstract: Any) -> Any:
        if self.own_state is None:
            return None
        return jax.tree.map(
            lambda to: jax.device_put(jnp.full(to.shape, self.own_state, to.dtype), to.sharding),
            abstract,
        )


def restored(run, directory):
    setup = Setup.of(run, make_mesh(run.mesh))
    check_resume(run, directory)
    return helpers.restored(directory, setup)


def parts(opt_state: Any) -> tuple[list[int], list[Any]]:
    """The count of the learning rate's schedule, and all other arrays."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_schedule)
    counts = [int(node.count) for node in nodes if is_schedule(node)]
    return counts, [node for node in nodes if not is_schedule(node)]


ORIGIN = {"from": "hf", "path": "somewhere"}


@pytest.fixture
def run():
    return run_config(model=tiny_config(), train_steps=1000)


def test_a_fresh_optimizer_whose_learning_rate_is_the_steps(run, tmp_path):
    params = init(run.model)
    count, kept = write_run(run, Made(params), tmp_path, "# gin", 500, ORIGIN)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert not kept
    assert (tmp_path / "config.gin").read_text() == "# gin"
    started = json.loads((tmp_path / "start.json").read_text())
    assert started == {**ORIGIN, "step": 500, "optimizer": "fresh"}
    found = restored(run, tmp_path)
    assert (int(found.state.step), found.positions) == (500, {})
    jax.tree.map(np.testing.assert_array_equal, found.state.params, params)
    schedule, others = parts(found.state.opt_state)
    assert schedule == [500]
    assert not any(np.any(np.asarray(leaf)) for leaf in others)


def test_a_source_with_an_optimizers_state(run, tmp_path):
    _, kept = write_run(run, Made(init(run.model), own_state=3), tmp_path, "# gin", 7, ORIGIN)
    assert kept
    schedule, others = parts(restored(run, tmp_path).state.opt_state)
    assert schedule == [7]
    for leaf in others:
        np.testing.assert_array_equal(leaf, np.full(leaf.shape, 3, leaf.dtype))


def test_bytes_per_device_are_those_of_the_runs_layout(run, tmp_path):
    """Fully sharded, each of eight devices holds an eighth of every matrix."""
    split = dataclasses.replace(run, mesh=MeshConfig(8, 1, 1, fully_sharded=True))
    write_run(split, Made(init(run.model)), tmp_path, "# gin", 0, ORIGIN)
    said = (tmp_path / "model_info.txt").read_text()
    setup = Setup.of(split, make_mesh(split.mesh))
    held = sum(
        np.prod(leaf.sharding.shard_shape(leaf.shape)) * 4
        for leaf in jax.tree.leaves(setup.abstract.params)
    )
    assert held < 4 * setup.model.num_params / 4
    assert f"bytes per device: {held:,} " in said


def test_help_imports_nothing_heavy():
    # JAX reads the environment when it is imported: not before --cpu_devices has set it.
    code = "import sys, switchx.cli.main as m; m.main(sys.argv[1:])"
    for name in ("import", "export"):
        ran = subprocess.run(
            [sys.executable, "-c", f"{code}; assert 'jax' not in sys.modules", name, "--input"],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
