"""Models and optimizer states that T5X wrote, read slice by slice.

What corresponds
- Every parameter, as it is: T5X's kernels are matrices [in, out], experts [E, in, out]; we stack
  a parameter of all blocks on a leading axis.
- Adafactor's statistics (Shazeer and Stern 2018). A matrix is factored by both if its dimensions
  are at least 128, an expert's always; T5X takes "expert" as a batch dimension, as we do. Under
  its rule for matrices T5X's v_row keeps the smaller dimension and v_col the larger, and so do
  optax's. For experts T5X goes by name (v_row keeps d_model, v_col keeps d_ff), so there the
  statistic that keeps the same dimension is taken, whatever it is called. The estimate
  v_row v_col / mean is symmetric in the two.
- The step counts updates done: it is the step of the run, of the learning rate's schedule and
  of the second moments' decay.
What does not: a first moment (T5X's `m`) is refused, since our Adafactor has none; and a
checkpoint without optimizer state, or a run with another optimizer, starts its optimizer afresh.
"""

from typing import Any

import jax
import numpy as np

from switchx import storage
from switchx.errors import UserError
from switchx.interop.source import Index, SpecialIds, build, check_finite, with_biases
from switchx.interop.t5x_index import Array, read_index
from switchx.interop.t5x_names import array_names, is_stacked
from switchx.interop.t5x_sizes import model_fields, stack_shapes
from switchx.model import Params
from switchx.model.flaxformer_groups import pads
from switchx.training.config import RunConfig

_TARGET, _STATES, _STEP = "target/", "state/param_states/", "state/step"
_STATISTICS = ("v_row", "v_col", "v")
_UNUSED = (1,)  # the shape of a statistic that a parameter does not have


def open_source(path: str) -> "T5XSource":
    """Opens a checkpoint folder (`checkpoint_500100`). Reads its index alone.

    It lies on this machine, at gs:// or at s3://, where arrays can be read part by part.
    """
    return T5XSource(read_index(storage.store_path(path, "--input")))


class T5XSource:
    """A checkpoint of T5X; see `switchx.interop.Source`."""

    def __init__(self, arrays: dict[str, Array]):
        self._arrays = arrays
        shapes = {
            name.removeprefix(_TARGET): array.shape
            for name, array in arrays.items()
            if name.startswith(_TARGET)
        }
        self._stacks = stack_shapes(shapes)
        self.model_fields: dict[str, Any] = model_fields(shapes, self._stacks)
        self.step: int | None = self._read_step()
        self.notes: list[str] = []
        self.special: SpecialIds | None = None
        self.vocabulary: bytes | None = None

    def params(self, abstract: Params) -> Params:
        """Every parameter; a device reads its own slices alone."""
        return with_biases(abstract, self._params)

    def _params(self, abstract: Params) -> Params:
        used: set[str] = set()

        def read(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
            names = [_TARGET + name for name in self._names(path)]
            used.update(names)
            return self._read(names, is_stacked(_keys(path)), leaf)

        params = jax.tree_util.tree_map_with_path(read, abstract)
        left = sorted(n for n in self._arrays if n.startswith(_TARGET) and n not in used)
        if left:
            raise UserError(f"{left[0]} of the T5X checkpoint has no place in switchx's model.")
        return params

    def opt_state(self, abstract: Any) -> Any | None:
        """Adafactor's state; None if there is none or `abstract` is another optimizer's.

        Raises:
          UserError: the statistics are not those of T5X's Adafactor without a first moment.
        """
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(abstract)]
        adafactor = any(_statistic(path) == "v_row" for path in paths)
        if not adafactor or not any(name.startswith(_STATES) for name in self._arrays):
            return None
        if self.step is None:
            raise UserError(f"The T5X checkpoint has an optimizer's statistics but no {_STEP}.")
        for name, array in self._arrays.items():
            if name.startswith(_STATES) and name.endswith("/m") and array.shape != _UNUSED:
                raise UserError(
                    f"{name} of the T5X checkpoint is a first moment, which switchx's Adafactor "
                    "does not have."
                )
        return jax.tree_util.tree_map_with_path(self._read_state, abstract)

    def _read_state(self, path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        """One array of our optimizer's state: a statistic of a parameter, or a counter."""
        ours = _statistic(path)
        if ours is None:
            return _full(leaf, self.step)
        names = self._names(path)
        theirs = self._statistic_of(names[0], ours)
        names = [f"{_STATES}{name}/{theirs}" for name in names]
        if leaf.shape[-1:] == _UNUSED and all(self._array(n).shape == _UNUSED for n in names):
            return _full(leaf, 0)
        return self._read(names, is_stacked(_keys(path)), leaf)

    def _statistic_of(self, name: str, ours: str) -> str:
        """What T5X calls the statistic of a parameter that optax calls `ours`."""
        shape = self._array(_TARGET + name).shape
        if ours == "v" or len(shape) < 3:
            return ours
        smaller, larger = (int(i) for i in np.argsort(shape[1:]))
        kept = smaller if ours == "v_row" else larger
        d_model = 1 if name.endswith("/wo/kernel") else 0
        return "v_row" if kept == d_model else "v_col"

    def _names(self, path: tuple) -> list[str]:
        gated = self.model_fields["ModelConfig.activation"] == "geglu"
        return array_names(_keys(path), self._stacks, gated)

    def _array(self, name: str) -> Array:
        if name not in self._arrays:
            raise UserError(f"The T5X checkpoint has no array {name}.")
        return self._arrays[name]

    def _read(self, names: list[str], stacked: bool, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        """One of our arrays out of T5X's, which are its blocks if it is stacked."""
        wanted = (len(names), *leaf.shape[1:]) if stacked else leaf.shape
        arrays = [self._array(name) for name in names]
        for name, array in zip(names, arrays, strict=True):
            if leaf.shape != wanted or array.shape != leaf.shape[stacked:]:
                raise UserError(
                    f"{name} of the T5X checkpoint has the shape {list(array.shape)}, where "
                    f"the model's sizes make it {list(leaf.shape[stacked:])}."
                )

        def read(numbers: tuple[int, ...], index: Index) -> np.ndarray:
            which = numbers[0] if stacked else 0
            part = arrays[which].read(index)
            return check_finite(part, f"{names[which]} of the T5X checkpoint")

        return build(leaf, int(stacked), read)

    def _read_step(self) -> int | None:
        array = self._arrays.get(_STEP)
        if array is None:
            return None
        if array.shape != () or not 0 <= (step := int(array.read(()))) < 2**31:
            raise UserError(f"{_STEP} of the T5X checkpoint is not a number of steps.")
        return step


def group_fields(run: RunConfig) -> dict[str, Any]:
    """SwitchConfig.group_padding as it must be for T5X's figures, where T5X fills batches up.

    So it does with batches whose tokens are no multiple of the experts; {} where there is none.
    """
    switch = run.model.switch
    if switch is None:
        return {}
    sizes = {
        (batch.batch_size, length)
        for batch in (run.batch, run.eval_batch)
        for stack, length in (("encoder", batch.input_length), ("decoder", batch.target_length))
        if stack in run.model.stacks and run.model.stacks[stack].num_sparse
    }
    filled_up = any(pads(B, L, switch.num_experts) for B, L in sizes)
    return {"SwitchConfig.group_padding": "flaxformer"} if filled_up else {}


def _keys(path: tuple) -> tuple[str, ...]:
    """The parameter's names at the end of a path: through dicts alone."""
    keys: list[str] = []
    for key in reversed(path):
        if not isinstance(key, jax.tree_util.DictKey) or not isinstance(key.key, str):
            break
        keys.insert(0, key.key)
    return tuple(keys)


def _statistic(path: tuple) -> str | None:
    """The field of optax's FactoredState that a leaf belongs to; None for counters."""
    names = [getattr(key, "name", None) for key in path]
    return next((name for name in names if name in _STATISTICS), None)


def _full(leaf: jax.ShapeDtypeStruct, value: int | None) -> jax.Array:
    return jax.device_put(np.full(leaf.shape, value, leaf.dtype), leaf.sharding)
