"""What is computed? Layers, attention, router, dispatch, experts, transformer.

Arrays carry their shape in their name, a suffix of single letters:

B batch, L length, M length attended to, D d_model, F d_ff, H heads, K d_kv, V vocabulary,
E experts, G groups, S tokens per group, C capacity per expert and group, N blocks (stacked).

and, where these do not reach: J choices of a token (1 for Switch), T attention's inner width
H*K (or, within the router, J*S), Q slots of all experts E*C, R relative position buckets,
W relative distances.
"""

from switchx.model.config import ModelConfig
from switchx.model.counts import forward_flops, parameter_count, train_flops
from switchx.model.model import Model, Params
from switchx.model.noise import NO_NOISE, Noise, seed_key
from switchx.model.routing import Assignment, RoutingStats
from switchx.model.switch_config import SwitchConfig
from switchx.model.switch_layer import Groupings
from switchx.model.transformer import Encoded, Output, Segments, Transformer, Written

__all__ = [
    "NO_NOISE",
    "Assignment",
    "Encoded",
    "Groupings",
    "Model",
    "ModelConfig",
    "Noise",
    "Output",
    "Params",
    "RoutingStats",
    "Segments",
    "SwitchConfig",
    "Transformer",
    "Written",
    "forward_flops",
    "parameter_count",
    "seed_key",
    "train_flops",
]
