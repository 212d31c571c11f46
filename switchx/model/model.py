"""The pure view of a model: parameters as a nested dict of arrays, the module made where used."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.transformer import Transformer

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """A configuration with everything about it that is known before it has parameters.

    All who ask for that of a configuration have the same, and leave it as it is.

    Attributes:
      graphdef: the module without its parameters.
      shapes: jax.ShapeDtypeStruct of every parameter, nested like the parameters.
      axes: logical axis names of every parameter's dimensions, nested alike.
    """

    config: ModelConfig
    graphdef: Any
    shapes: Params
    axes: Params

    @classmethod
    @functools.lru_cache(16)
    def of(cls, config: ModelConfig) -> "Model":
        """Traces the constructor; allocates nothing, whatever the model's size."""
        abstract = nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(params=jax.random.key(0))))
        graphdef, state = nnx.split(abstract)
        axes = jax.tree.map(lambda p: p.axes, state, is_leaf=_is_param)
        return cls(config, graphdef, nnx.to_pure_dict(state), nnx.to_pure_dict(axes))

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32. Run it under jit with out_shardings to make them in place."""
        return nnx.to_pure_dict(nnx.state(Transformer(self.config, nnx.Rngs(params=key))))

    def bind(self, params: Params) -> Transformer:
        """The module with these parameters, to be called within jit."""
        return nnx.merge(self.graphdef, nnx.State(jax.tree.map(nnx.Param, params)))

    @functools.cached_property
    def num_params(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes))


def _is_param(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)
