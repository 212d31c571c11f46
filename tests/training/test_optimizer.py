"""Adafactor against its definition in NumPy, matrix by matrix, and the layout of its state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from switchx.errors import UserError
from switchx.model import Model
from switchx.sharding import MeshConfig, make_mesh
from switchx.training.config import OptimizerConfig
from switchx.training.optimizers import OPTIMIZERS, make_optimizer, optimizer
from switchx.training.schedules import Rates, make_schedule
from switchx.training.state import Setup
from switchx.training.state_layout import state_axes
from tests.training.helpers import run_config


class NumpyAdafactor:
    """Shazeer and Stern (2018), algorithms 4 and 5 with T5's settings, for one matrix.

    T5X factors an expert's matrix whatever its size, others if that saves memory.
    """

    def __init__(self, shape, expert, weight_decay=0.0, momentum=0.0):
        self.weight_decay, self.momentum = weight_decay, momentum
        self.step = np.zeros(shape)
        self.factored = len(shape) == 2 and (expert or min(shape) >= 128)
        self.v = np.zeros(shape)
        self.row, self.column = np.zeros(shape[0]), np.zeros(shape[-1])

    def update(self, parameter, gradient, t, rate):
        decay = 1.0 - t**-0.8
        square = gradient.astype(np.float64) ** 2 + 1e-30
        if self.factored:
            self.row = decay * self.row + (1 - decay) * square.mean(axis=1)
            self.column = decay * self.column + (1 - decay) * square.mean(axis=0)
            v = np.outer(self.row, self.column) / self.row.mean()
        else:
            v = self.v = decay * self.v + (1 - decay) * square
        update = gradient / np.sqrt(v)
        update /= max(1.0, np.sqrt(np.mean(update**2)))
        scale = max(1e-3, np.sqrt(np.mean(parameter.astype(np.float64) ** 2)))
        self.step = self.momentum * self.step + (1 - self.momentum) * scale * update
        # t5x/adafactor.py: new_param = (1.0 - weight_decay_rate) * param - subtrahend
        return (1.0 - self.weight_decay) * parameter - rate * self.step


AXES = {
    "plain": ("vocab", "embed"),
    "layers": ("layers", "embed", "mlp"),
    "experts": ("layers", "expert", "embed", "mlp"),
    "small experts": ("layers", "expert", "embed", "mlp"),
    "narrow": ("layers", "embed", None),
    "scale": ("embed",),
}
SHAPES = {
    "plain": (130, 128),
    "layers": (3, 128, 140),
    "experts": (3, 4, 140, 128),
    "small experts": (3, 4, 6, 5),
    "narrow": (3, 128, 4),
    "scale": (150,),
}


def made(config, axes):
    return make_optimizer(config, make_schedule(config.schedule, Rates.of(config, 1000)), axes)


@pytest.mark.parametrize(("weight_decay", "momentum"), [(0.0, 0.0), (0.02, 0.0), (0.0, 0.9)])
def test_every_layers_and_every_experts_matrix_is_a_parameter_of_its_own(weight_decay, momentum):
    rng = np.random.default_rng(0)
    params = {
        name: (
            rng.standard_normal(shape)
            * 10.0 ** rng.integers(-5, 1, shape[:1] + (1,) * (len(shape) - 1))
        ).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    config = OptimizerConfig(
        learning_rate=1.0, warmup_steps=100, weight_decay=weight_decay, momentum=momentum
    )
    optimizer = made(config, AXES)
    state = optimizer.init(params)
    matrix_dims = {
        name: len(SHAPES[name]) - sum(a in ("layers", "expert") for a in axes)
        for name, axes in AXES.items()
    }
    peers = {}
    ours, theirs = params, {k: v.astype(np.float64) for k, v in params.items()}
    for t in range(1, 4):
        grads = {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
        updates, state = jax.jit(optimizer.update)(grads, state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, shape in SHAPES.items():
            for index in np.ndindex(shape[: len(shape) - matrix_dims[name]]):
                fresh = NumpyAdafactor(
                    shape[len(index) :], "expert" in AXES[name], weight_decay, momentum
                )
                peer = peers.setdefault((name, index), fresh)
                theirs[name][index] = peer.update(theirs[name][index], grads[name][index], t, 0.1)
    for name, index in peers:
        ours_at, theirs_at = ours[name][index], theirs[name][index]
        close = 1e-6 * np.abs(theirs_at).max()  # float32 against float64
        np.testing.assert_allclose(ours_at, theirs_at, rtol=1e-5, atol=close, err_msg=name)


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_the_state_lies_like_its_parameters(name):
    run = run_config(name=name)
    setup = Setup.of(run, make_mesh(MeshConfig(1, 4, 2)))
    sharded = {
        jax.tree_util.keystr(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(setup.abstract.opt_state)
        if any(axis is not None for axis in leaf.sharding.spec)
    }
    experts = {k: tuple(v) for k, v in sharded.items() if "wi_EDF" in k}
    if name == "adamw":
        assert set(experts.values()) == {(None, "expert", None, "model")}
        assert len(experts) == 4  # two moments in two stacks
    else:
        assert {k.split(".")[-1].split("[")[0]: v for k, v in experts.items()} == {
            "v_row": (None, "expert", None),  # averaged over d_ff, which comes last of equals
            "v_col": (None, "expert", "model"),
            "v": (None, "expert", None),  # a placeholder of one number for each expert
        }


SHAPES_OF = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
SHAPES_OF["square"] = jax.ShapeDtypeStruct((256, 256), jnp.float32)
AXES_OF = {**AXES, "square": ("embed", "heads")}

# Of others' optimizers, the arrays of a parameter's shape that each keeps for each parameter.
THEIRS = {
    "adam": (optax.adam(1e-3), 2),
    "adamw": (optax.adamw(1e-3), 2),
    "lion": (optax.lion(1e-3), 1),
    "sgd": (optax.sgd(1e-2, momentum=0.9, nesterov=True), 1),
    "rmsprop": (optax.rmsprop(1e-3, centered=True, momentum=0.9), 3),
    "averaged": (optax.chain(optax.adam(1e-3), optax.ema(0.99)), 3),
    "accumulated": (optax.MultiSteps(optax.sgd(1e-2), 4).gradient_transformation(), 1),
    "injected": (optax.inject_hyperparams(optax.adam)(learning_rate=1e-3, b1=0.8), 2),
    "noisy": (optax.chain(optax.add_noise(0.1, 0.5, 0), optax.trace(0.9)), 1),
    "masked": (optax.masked(optax.trace(0.9), {name: name != "scale" for name in AXES_OF}), 1),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_state_of_any_optimizer_lies_like_its_parameters(name):
    transformation, copies = THEIRS[name]
    found = state_axes(transformation, SHAPES_OF, AXES_OF)
    state = jax.eval_shape(transformation.init, SHAPES_OF)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    placed = [tuple(axes) for axes in jax.tree.leaves(found) if any(axes)]
    kept = [own for own in AXES_OF.values() if name != "masked" or len(own) > 1]
    assert sorted(placed, key=str) == sorted(kept * copies, key=str)


def test_a_factored_moment_lies_like_its_parameter_without_the_dimension_that_is_gone():
    """Also where two dimensions are equal: optax takes the later one for the larger."""
    found = state_axes(optax.adafactor(1e-3), SHAPES_OF, AXES_OF)
    (factored,) = [
        node for node in jax.tree.leaves(found, is_leaf=_is_factored) if _is_factored(node)
    ]
    # optax treats stacks as one array, and factors its two largest dimensions.
    assert factored.v_row["plain"] == PartitionSpec("embed")
    assert factored.v_col["plain"] == PartitionSpec("vocab")
    assert factored.v_row["square"] == PartitionSpec("embed")
    assert factored.v_col["square"] == PartitionSpec("heads")
    assert factored.v_row["experts"] == PartitionSpec("layers", "expert", "mlp")
    assert factored.v_col["experts"] == PartitionSpec("layers", "expert", "embed")
    assert factored.v["narrow"] == PartitionSpec("layers", "embed", None)
    assert factored.v["plain"] == PartitionSpec(None)


def _is_factored(node):
    return hasattr(node, "v_row")


def test_state_that_no_rule_places_is_refused_by_name():
    with pytest.raises(
        UserError, match=r"state holds .*trace .*\[\d+\], which is like no parameter"
    ):
        state_axes(optax.flatten(optax.trace(0.9)), SHAPES_OF, AXES_OF)


def test_an_optimizer_of_ones_own_trains_on_a_mesh(monkeypatch):
    """Registered by a name; its state is split as the parameters are."""

    monkeypatch.delitem(OPTIMIZERS, "mine", raising=False)

    @optimizer("mine")
    def mine(config, schedule, axes):
        return optax.inject_hyperparams(optax.sgd)(learning_rate=schedule, momentum=config.beta1)

    run = run_config(name="mine", clip_global_norm=1.0)
    setup = Setup.of(run, make_mesh(MeshConfig(1, 4, 2)))
    found = [leaf.sharding.spec for leaf in jax.tree.leaves(setup.abstract.opt_state) if leaf.ndim]
    assert found == [leaf.sharding.spec for leaf in jax.tree.leaves(setup.abstract.params)]
    del OPTIMIZERS["mine"]
    with pytest.raises(UserError, match=r"OPTIMIZER='mine' is not one of adafactor, adamw"):
        run_config(name="mine")


def test_adafactors_state_is_small():
    model = Model.of(run_config().model)
    optimizer = made(OptimizerConfig(), model.axes)
    sizes = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, model.shapes))]
    # Only the router kernels, norms and bias tables (a side below 128) keep a full moment.
    assert sum(sizes) < 0.1 * model.num_params


@pytest.mark.parametrize(("limit", "share"), [(5.0, 0.5), (20.0, 1.0)])
def test_global_norm_clipping_scales_gradients(limit, share, monkeypatch):
    """A norm of 10 is brought down to the limit, and left where it is below."""
    monkeypatch.setitem(OPTIMIZERS, "plain", lambda config, schedule, axes: optax.sgd(schedule))
    config = OptimizerConfig(
        name="plain", schedule="constant", learning_rate=0.1, warmup_steps=1, clip_global_norm=limit
    )
    plain = made(config, {"w": ("embed",), "v": ("embed",)})
    grads = {"w": jnp.full(4, 4.0), "v": jnp.full(4, 3.0)}
    updates, _ = plain.update(grads, plain.init(grads), grads)
    for name, grad in grads.items():
        np.testing.assert_allclose(updates[name], -0.1 * share * grad, rtol=1e-6)
