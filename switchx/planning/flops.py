"""FLOPs of a training step: what the model needs, what the program does, and what for.

A multiplication and an addition count as two. Only products count: of matrices, and of rows with
their experts' matrices.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from switchx.model import ModelConfig
from switchx.model.counts import mean_width
from switchx.model.dispatch import packed_shares
from switchx.model.in_stacks import in_stacks
from switchx.model.routing import Pools, Slots
from switchx.model.switch_layer import Grouping, num_groups
from switchx.planning.products import Counter
from switchx.sharding import expert_copies
from switchx.training.config import BatchShape
from switchx.training.freezing import step_flops
from switchx.training.state import Setup
from switchx.training.step import trace_train_step


@dataclasses.dataclass(frozen=True)
class Flops:
    """Of one training step, of all devices together.

    What several devices repeat because it is not shared out counts once, except in the ragged
    dispatcher, which says itself what each device does.

    Attributes:
      model: of the model whatever the program, `switchx.training.freezing.step_flops`.
      executed: of the program.
      waste: the difference by cause; its values add up to executed - model.
        "capacity padding": slots that no token can fill, or where they are packed, and with the
        ragged dispatcher, the rest of an expert's last block of rows; below 0 where tokens must
        be dropped, since the model counts their expert too.
        "dispatch": one-hot products, of the einsum dispatcher.
        "frozen": below 0, what the other causes have of the gradients of frozen parameters, and
        gradients on the way to nothing that is trained, which the model's count has.
        "rematerialization": what the backward pass computes again by the configuration's remat.
        "other": what the model's count leaves out. That has one of attention's two products and
        counts cross-attention's keys and values by the target's length (fewer than there are, or
        more, then this is lower). And the router, attention's weights again for the backward
        pass, whatever `remat` says, and sums that are written as products.
    """

    model: int
    executed: int
    waste: dict[str, int]


def count_flops(setup: Setup) -> Flops:
    """By tracing the step that training compiles, and up to four variants; compiles nothing."""
    config, batch = setup.run.model, setup.run.batch
    model = step_flops(setup.run, setup.model)
    executed = _traced(setup)
    kept = _variant(setup, remat="none")
    without_remat = _traced(kept)
    with jax.set_mesh(setup.mesh):
        rows = [*_rows_of_experts(config, batch, setup.run.trainer.microbatches)]
    waste = {
        "capacity padding": sum(each.padding for each in rows),
        "dispatch": 0,
        "rematerialization": executed - without_remat,
    }
    without_frozen, switch = without_remat, config.switch
    if setup.run.optimizer.frozen:
        kept = _all_trained(kept)
        without_frozen = _traced(kept)
        waste["frozen"] = without_remat - without_frozen
        waste["frozen"] += step_flops(kept.run, kept.model) - model
    if switch and switch.dispatcher == "einsum":
        by_index = _variant(kept, switch=dataclasses.replace(switch, dispatcher="index"))
        waste["dispatch"] = without_frozen - _traced(by_index)
    if any(each.in_blocks for each in rows):
        waste["capacity padding"] += without_frozen - _traced(kept, whole_blocks=False)
    waste["other"] = executed - model - sum(waste.values())
    return Flops(model, executed, waste)


def _traced(setup: Setup, whole_blocks: bool = True) -> int:
    """Of the step as it is traced for the platform of the run's mesh."""
    counter = Counter(setup.mesh.devices.flat[0].platform, whole_blocks)
    return counter.count(trace_train_step(setup).jaxpr)


def _variant(setup: Setup, **changes: Any) -> Setup:
    """The same run with another model of the same parameters."""
    model = dataclasses.replace(setup.run.model, **changes)
    return Setup.of(dataclasses.replace(setup.run, model=model), setup.mesh)


def _all_trained(setup: Setup) -> Setup:
    """The same run without FREEZE."""
    optimizer = dataclasses.replace(setup.run.optimizer, frozen=())
    return Setup.of(dataclasses.replace(setup.run, optimizer=optimizer), setup.mesh)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What the experts of a stack multiply.

    Attributes:
      padding: 3 x 2 x the multiplications in rows beyond those of the tokens' choices.
      in_blocks: whether rows are multiplied in blocks, of which the last are not counted as full.
    """

    padding: int
    in_blocks: bool


def _rows_of_experts(config: ModelConfig, batch: BatchShape, microbatches: int) -> Iterator[_Rows]:
    """Of each stack that has experts, on the mesh in force."""
    switch = config.switch
    if switch is None:
        return
    experts, widths = zip(*config.expert_widths, strict=True)
    copies = expert_copies(jax.sharding.get_abstract_mesh())
    kernels = (3 if config.gated else 2) * switch.in_feed_forward
    in_attention = 2 * config.num_heads * config.d_kv * switch.in_attention
    of_token = switch.top_k * (kernels * mean_width(config) + in_attention)
    stacks = (
        (config.encoder, batch.input_length, False),
        (config.decoder, batch.target_length, True),
    )
    for stack, length, causal in stacks:
        if not stack.num_sparse:  # its tokens need not divide into groups
            continue
        whole = Grouping.of(switch, causal, train=True)
        grouping, B, L = whole.of_batch(batch.batch_size // microbatches, length)
        if grouping.capacity is None or isinstance(grouping.capacity, Pools):
            yield _Rows(0, True)
            continue
        in_place = in_stacks(config, whole, batch.batch_size // microbatches, length)
        groups, slots = num_groups(B, L, grouping.size), Slots.of(grouping.capacity, experts)
        choices = switch.num_experts if grouping.policy.needs_capacity else switch.top_k
        shares = packed_shares(slots, grouping.size * choices, groups, in_place)
        held = sum(
            number
            * (groups * C if share is None else copies * share)
            * (kernels * width + in_attention)
            for (number, C), width, share in zip(slots.by_width, widths, shares, strict=True)
        )
        more = microbatches * stack.num_sparse * (held - groups * grouping.size * of_token)
        yield _Rows(round(3 * 2 * config.d_model * more), any(shares))
