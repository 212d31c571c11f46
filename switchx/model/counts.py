"""Closed forms: what a configuration costs before anything is built."""

from switchx.model.config import ModelConfig, SwitchConfig
from switchx.model.shape import StackShape


def parameter_count(config: ModelConfig) -> int:
    """Parameters by formula, independent of the code that makes them."""
    c, switch = config, config.switch
    tables = (1 if c.tied_embeddings else 2) * c.vocab_size * c.d_model
    encoder, decoder = c.encoder, c.decoder
    num_layers = encoder.num_layers + decoder.num_layers
    tables_HR = num_layers if c.bias_per_layer else len(c.stacks)
    biases = tables_HR * c.relative_buckets * c.num_heads
    norms = (2 * encoder.num_layers + 3 * decoder.num_layers + len(c.stacks)) * c.d_model
    projection = c.d_model * c.num_heads * c.d_kv
    attention = (encoder.num_layers + 2 * decoder.num_layers) * 4 * projection
    feed_forward = (3 if c.gated else 2) * c.d_model * c.d_ff
    dense = num_layers * feed_forward
    if switch is None:
        return tables + biases + norms + attention + dense
    E, layers = switch.num_experts, encoder.num_sparse + decoder.num_sparse
    router = c.d_model * E
    if switch.in_attention:  # E queries and E keys for the dense three
        attention += layers * (2 * E * projection + router - 3 * projection)
    if switch.in_feed_forward:
        dense += layers * (E * feed_forward + router - feed_forward)
    if switch.extra_dense:
        dense += layers * feed_forward
    return tables + biases + norms + attention + dense


def forward_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's forward pass, a multiplication and an addition counted as two.

    Of an encoder alone the logits are at its inputs, and there are no targets' tokens.

    Every token through one feed-forward, or attention's projections, per layer for each of its
    `top_k` experts, an extra dense feed-forward where there is one, the logits, and attention's
    products over whole lengths; no router, norms or softmax. Matches the FLOPs per sequence of
    the paper's Table 9 to 0.63 % at lengths 512 and 114, and ST-MoE-32B's 20.2 T to 0.53 %.
    """
    c, switch = config, config.switch
    projection = c.d_model * c.num_heads * c.d_kv
    feed_forward = (3 if c.gated else 2) * c.d_model * c.d_ff
    difference = _sparse_difference(switch, feed_forward, projection) if switch else 0

    def of_stack(shape: StackShape, projections: int) -> int:
        dense = shape.num_layers * (feed_forward + projections * projection)
        return dense + shape.num_sparse * difference

    # Cross-attention's keys and values are counted with the target, as the published figures do.
    lengths = c.encoder.num_layers * input_length**2
    lengths += c.decoder.num_layers * (target_length**2 + input_length * target_length)
    return 2 * (
        input_length * of_stack(c.encoder, 4)
        + target_length * of_stack(c.decoder, 8)
        + (input_length if c.encoder_alone else target_length) * c.vocab_size * c.d_model
        + lengths * c.num_heads * c.d_kv
    )


def _sparse_difference(switch: SwitchConfig, feed_forward: int, projection: int) -> int:
    """Multiplications per token that a layer with experts has over one without."""
    more = 0
    if switch.in_feed_forward:
        more += (switch.top_k - 1) * feed_forward
    if switch.in_attention:  # two projections per choice for the dense three
        more += (2 * switch.top_k - 3) * projection
    return more + (feed_forward if switch.extra_dense else 0)


def train_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's training step: the backward pass does each product twice."""
    return 3 * forward_flops(config, input_length, target_length)
