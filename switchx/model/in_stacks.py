"""Experts' kernels in the stacks of all layers of a loop: where, and how they get through it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from switchx.model.config import ModelConfig
from switchx.model.dispatch import Stacked
from switchx.model.experts import Experts
from switchx.model.switch_layer import Grouping, num_groups
from switchx.model.tpu import from_v5_on
from switchx.sharding import expert_copies, spec

# Of d_model and of an expert's width on a device: tiles of the kernels fit with all of one of them.
_WIDEST = 8192


def in_stacks(config: ModelConfig, grouping: Grouping, B: int, L: int) -> bool:
    """Whether the experts have kernels in stacks, of B sequences of L tokens on the mesh in force.

    On TPUs, of rows sorted by expert, where each device has experts of its own: gradients of
    several devices would have to be summed, all layers' with each layer.
    """
    mesh, switch = jax.sharding.get_abstract_mesh(), config.switch
    if switch is None or switch.in_attention or not from_v5_on() or expert_copies(mesh) > 1:
        return False
    numbers, widths = zip(*config.expert_widths, strict=True)
    if max(config.d_model, max(widths) // mesh.shape.get("model", 1)) > _WIDEST:
        return False
    grouping, B, L = grouping.of_batch(B, L)
    choices = switch.num_experts if grouping.policy.needs_capacity else switch.top_k
    cut = grouping.size * choices, num_groups(B, L, grouping.size)
    return grouping.dispatcher.in_stacks(grouping.capacity, numbers, *cut)


class InStacks:
    """Of a row of equal blocks, whose parameters lie in stacks: those of experts, and the others.

    Attributes:
      others_N: what a loop over the blocks cuts up.
      passed: the experts' stacks, which go through the loop.
    """

    def __init__(self, block: nnx.Module, chosen: bool):
        """`chosen`: whether experts' parameters stay in stacks, of those that are theirs alone."""
        self.graphdef, params_N = nnx.split(block)
        params = dict(nnx.to_flat_state(params_N))
        self._axes = _axes_by_path(block) if chosen else {}
        self._params = [(path, params.pop(path)) for path in self._axes]
        self.others_N = nnx.from_flat_state(params.items())
        self.passed = [param.get_value() for _, param in self._params]
        self._kernels = jax.lax.stop_gradient(self.passed)

    def block(self, others: nnx.State, passed: Sequence[jax.Array], layer: jax.Array) -> Any:
        """The block of this number."""
        params = dict(nnx.to_flat_state(others))
        own = zip(self._params, self._kernels, passed, strict=True)
        for (path, param), kernel_LEDF, passed_LEDF in own:
            params[path] = param.replace(Stacked(kernel_LEDF, passed_LEDF, layer))
        return nnx.merge(self.graphdef, nnx.from_flat_state(params.items()))

    def handed_on(self, block: nnx.Module) -> list[jax.Array]:
        """What goes from a block that was computed to the next one."""
        params = dict(nnx.to_flat_state(nnx.state(block)))
        return [params[path].get_value().passed_LEDF for path, _ in self._params]

    def ended(self, x_BLD: jax.Array, passed: Sequence[jax.Array]) -> jax.Array:
        """x, behind the last block: here begin the stacks of gradients, as room for all blocks'."""
        if not passed:
            return x_BLD
        shapes = (stack.shape for stack in self.passed)
        stacks = tuple(zip(shapes, self._axes.values(), strict=True))
        return _ended(stacks, x_BLD, passed)


Stacks = tuple[tuple[tuple[int, ...], tuple[str, ...]], ...]  # shapes and logical axes


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ended(stacks: Stacks, x_BLD: jax.Array, passed: Sequence[jax.Array]) -> jax.Array:
    return x_BLD


def _begin_gradients(
    stacks: Stacks, _: None, dx_BLD: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    return dx_BLD, [_room(*stack) for stack in stacks]


_ended.defvjp(lambda stacks, x_BLD, passed: (x_BLD, None), _begin_gradients)


def _room(shape: tuple[int, ...], axes: tuple[str, ...]) -> jax.Array:
    """Not zeros: every layer writes all of its part."""
    from switchx.model.dispatch import sorted_mosaic

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return sorted_mosaic.room(shape)
    own = jax.NamedSharding(mesh, spec(*axes))
    make = functools.partial(sorted_mosaic.room, own.shard_shape(shape))
    return jax.shard_map(make, in_specs=(), out_specs=own.spec, check_vma=False)()


def _axes_by_path(block: nnx.Module) -> dict[tuple, tuple[str, ...]]:
    """Where the experts' stacks lie, and the logical axes of each."""
    return {
        (*path, name): ("layers", *axes)
        for path, module in nnx.iter_modules(block)
        if isinstance(module, Experts)
        for name, axes in module.kernel_axes.items()
    }
