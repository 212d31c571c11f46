"""Training goes on from T5X's optimizer state as T5X's Adafactor would, written out in NumPy."""

import jax
import numpy as np
import pytest

from switchx.errors import UserError
from switchx.interop.t5x import T5XSource
from switchx.interop.t5x_index import InlineArray, read_index
from switchx.training.state import TrainState
from switchx.training.step import apply_gradients
from tests.interop.t5x_files import (
    UNUSED,
    checkpoint_arrays,
    kept_dims,
    target_arrays,
    unpack_switch_tiny,
)
from tests.interop.test_t5x import setup_for


def in_memory(arrays):
    return T5XSource({name: InlineArray(value) for name, value in arrays.items()})


def rms(x, dims):
    return np.sqrt(np.mean(x**2, axis=dims, keepdims=True))


def t5x_adafactor(arrays, grads, rate):
    """One step on a checkpoint's arrays: Shazeer and Stern (2018), algorithms 4 and 5, in float64.

    An expert is a parameter of its own: means are taken over the other dimensions.
    """
    step = int(arrays["state/step"])
    decay = 1.0 - (step + 1.0) ** -0.8
    out = {"state/step": np.array(step + 1, np.int32)}
    for name, grad in grads.items():
        state, param = f"state/param_states/{name}", arrays[f"target/{name}"].astype(np.float64)
        square = grad.astype(np.float64) ** 2 + 1e-30
        every = tuple(range(grad.ndim))
        own = every[1:] if grad.ndim == 3 else every
        moments = {}
        for kind, kept in kept_dims(name, grad.shape).items():
            mean = square.mean(axis=tuple(i for i in every if i not in kept))
            moments[kind] = decay * arrays[f"{state}/{kind}"] + (1 - decay) * mean
            out[f"{state}/{kind}"] = moments[kind]
        v = moments.get("v")
        if v is None:
            row, column = (
                np.expand_dims(moments[kind], tuple(i for i in every if i not in kept))
                for kind, kept in kept_dims(name, grad.shape).items()
            )
            v = row * column / row.mean(axis=own, keepdims=True)
        update = grad / np.sqrt(v)
        update /= np.maximum(1.0, rms(update, own))
        out[f"target/{name}"] = param - rate * np.maximum(1e-3, rms(param, own)) * update
    return {**arrays, **out}


def widths(**changes):
    """A checkpoint whose matrices are factored; d_model is above or below d_ff."""
    shape = dict(V=130, H=8, K=16, E=3, L=2) | changes
    return checkpoint_arrays(target_arrays(**shape), step=7)


CHECKPOINTS = {
    "switch_tiny": None,
    "d_ff larger": dict(D=128, F=144),
    "d_ff smaller": dict(D=136, F=128, tied=False, gated=True),
    "equal, a wide router": dict(D=128, F=128, E=130, sparse=(0, 1), V=20),
}


@pytest.fixture(params=CHECKPOINTS)
def arrays(request, tmp_path):
    if request.param != "switch_tiny":
        return widths(**CHECKPOINTS[request.param])
    folder = unpack_switch_tiny(tmp_path) / "checkpoint_10"
    return {
        name: array.read(tuple(slice(0, n) for n in array.shape))
        for name, array in read_index(folder).items()
    }


def test_two_steps_equal_t5x_adafactor(arrays):
    """The second step shows that the first one left the right statistics."""
    source = in_memory(arrays)
    setup = setup_for(source.model_fields)
    state = TrainState(
        jax.numpy.int32(source.step),
        source.params(setup.abstract.params),
        source.opt_state(setup.abstract.opt_state),
    )
    rate = 1 / np.sqrt(setup.run.optimizer.warmup_steps)  # both steps are within the warm-up
    rng = np.random.default_rng(3)
    update = jax.jit(lambda state, grads: apply_gradients(setup, state, grads))
    for _ in range(2):
        grads = {
            name.removeprefix("target/"): rng.standard_normal(value.shape).astype(np.float32)
            for name, value in arrays.items()
            if name.startswith("target/")
        }
        stacked = in_memory({f"target/{name}": grad for name, grad in grads.items()})
        state = update(state, stacked.params(setup.abstract.params))
        arrays = t5x_adafactor(arrays, grads, rate)
    expected = in_memory(arrays).params(setup.abstract.params)
    assert int(state.step) == source.step + 2
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_rule_of_the_oracle_is_that_of_the_checkpoint(tmp_path):
    arrays = read_index(unpack_switch_tiny(tmp_path) / "checkpoint_10")
    for name, array in arrays.items():
        if name.startswith("target/"):
            parameter = name.removeprefix("target/")
            kept = kept_dims(parameter, array.shape)
            for kind in ("v", "v_row", "v_col"):
                shape = tuple(array.shape[i] for i in kept[kind]) if kind in kept else (1,)
                assert arrays[f"state/param_states/{parameter}/{kind}"].shape == shape, name


def test_without_an_optimizers_state_there_is_none():
    arrays = {n: v for n, v in widths().items() if n.startswith("target/")}
    source = in_memory(arrays)
    assert source.step is None
    assert source.opt_state(setup_for(source.model_fields).abstract.opt_state) is None


def test_a_first_moment_is_refused():
    arrays = widths()
    name = "token_embedder/embedding"
    arrays[f"state/param_states/{name}/m"] = np.zeros((130, 16), np.float32)
    source = in_memory(arrays)
    with pytest.raises(UserError, match=f"{name}/m .* is a first moment"):
        source.opt_state(setup_for(source.model_fields).abstract.opt_state)


def test_statistics_of_another_rule_are_refused():
    """Mesh TensorFlow factors an expert tensor over its experts where they are many."""
    arrays = widths()
    name = "state/param_states/encoder/layers_1/mlp/expert/wi/kernel"
    arrays[f"{name}/v_row"] = np.zeros((16, 24), np.float32)
    source = in_memory(arrays)
    with pytest.raises(UserError, match=r"v_row .* has the shape \[16, 24\]"):
        source.opt_state(setup_for(source.model_fields).abstract.opt_state)
    arrays[f"{name}/v_row"] = UNUSED
    with pytest.raises(UserError, match=r"v_row .* has the shape \[1\]"):
        in_memory(arrays).opt_state(setup_for(source.model_fields).abstract.opt_state)
