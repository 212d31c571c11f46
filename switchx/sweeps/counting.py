"""What a point's training costs, counted as the sweep says."""

import dataclasses
from collections.abc import Collection

from switchx.errors import UserError
from switchx.model import ModelConfig, forward_flops, parameter_count, train_flops
from switchx.model.counts import parameters_per_token


def sequence_flops(
    model: ModelConfig, input_length: int, target_length: int, counted: Collection[str]
) -> int:
    """FLOPs of training on one sequence, forward and backward.

    `switchx.model.train_flops` counts the logits and no router; embedding lookups are no FLOPs.

    Args:
      counted: 'logits' for the product with the output embedding, 'router' for those with the
        routers' weights.
    """
    found = train_flops(model, input_length, target_length)
    if "logits" not in counted:
        tokens = input_length if model.encoder_alone else target_length
        found -= 6 * tokens * model.vocab_size * model.d_model
    if "router" in counted and model.switch is not None:
        routers = int(model.switch.in_feed_forward) + int(model.switch.in_attention)
        layers = model.encoder.num_sparse * input_length + model.decoder.num_sparse * target_length
        found += 6 * routers * layers * model.d_model * model.switch.num_experts
    return found


def parameters(model: ModelConfig, per_token: bool = False) -> int:
    """All parameters, or those that one token uses."""
    return parameters_per_token(model) if per_token else parameter_count(model)


def check_equal_flops(model: ModelConfig) -> None:
    """Raises UserError where no dense model does the same FLOPs a token as this one's experts."""
    dense = dataclasses.replace(model, switch=None)
    if forward_flops(model, 512, 114) != forward_flops(dense, 512, 114):
        raise UserError(
            "NUM_EXPERTS=1 is the dense model of equal FLOPs, and to experts with "
            f"SwitchConfig.top_k={model.switch.top_k}, "
            f"SwitchConfig.extra_dense={model.switch.extra_dense}, "
            f"SwitchConfig.expert_widths={model.switch.expert_widths!r} and "
            f"SwitchConfig.experts_in={model.switch.experts_in!r} there is none: leave 1 out."
            if model.switch
            else ""
        )
