"""Closed forms: what a configuration costs before anything is built."""

from fractions import Fraction

from switchx.model.config import ModelConfig
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
    layers = encoder.num_sparse + decoder.num_sparse
    router = (c.d_model + switch.biased) * switch.num_experts
    if switch.in_attention:  # queries and keys of the experts for the dense three
        attention += layers * (router - 3 * projection)
    if switch.in_feed_forward:
        dense += layers * (router - feed_forward)
    dense += expert_parameter_count(config)
    if switch.extra_dense:
        dense += layers * feed_forward
    return tables + biases + norms + attention + dense


def expert_parameter_count(config: ModelConfig) -> int:
    """Those of all experts, without their routers."""
    c, switch = config, config.switch
    if switch is None:
        return 0
    each = 0
    if switch.in_attention:
        each += switch.num_experts * 2 * c.d_model * c.num_heads * c.d_kv
    if switch.in_feed_forward:
        width = sum(number * d_ff for number, d_ff in c.expert_widths)
        each += (3 if c.gated else 2) * c.d_model * width
    return (c.encoder.num_sparse + c.decoder.num_sparse) * each


def mean_width(config: ModelConfig) -> Fraction:
    """d_ff of a token's expert on average, where experts get the tokens that they should have.

    See SwitchConfig.token_shares. By tokens it is the mean of the experts' widths, by cost their
    harmonic mean, which is less.
    """
    assert config.switch is not None
    widths = (d_ff for _, d_ff in config.expert_widths)
    shares = config.switch.token_shares
    return sum((E * share * F for (E, share), F in zip(shares, widths, strict=True)), Fraction())


def parameters_per_token(config: ModelConfig) -> int:
    """How many one token uses, of the experts those that it visits, at `mean_width`."""
    whole, switch = parameter_count(config), config.switch
    if switch is None:
        return whole
    used = switch.top_k * mean_width(config) / sum(E * F for E, F in config.expert_widths)
    return whole - round(expert_parameter_count(config) * (1 - used))


def forward_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's forward pass, a multiplication and an addition counted as two.

    Of an encoder alone the logits are at its inputs, and there are no targets' tokens.

    Every token through one feed-forward, or attention's projections, per layer for each of its
    `top_k` experts, an extra dense feed-forward where there is one, the logits, and attention's
    products over whole lengths; no router, norms or softmax. Experts of several widths count as
    `mean_width`. Matches the FLOPs per sequence of the paper's Table 9 to 0.63 % at lengths 512 and
    114, and ST-MoE-32B's 20.2 T to 0.53 %.
    """
    c, switch = config, config.switch
    projection = c.d_model * c.num_heads * c.d_kv
    feed_forward = (3 if c.gated else 2) * c.d_model * c.d_ff
    difference = _sparse_difference(c, feed_forward, projection) if switch else 0

    def of_stack(shape: StackShape, projections: int) -> int | Fraction:
        dense = shape.num_layers * (feed_forward + projections * projection)
        return dense + shape.num_sparse * difference

    # Cross-attention's keys and values are counted with the target, as the published figures do.
    lengths = c.encoder.num_layers * input_length**2
    lengths += c.decoder.num_layers * (target_length**2 + input_length * target_length)
    return round(
        2
        * (
            input_length * of_stack(c.encoder, 4)
            + target_length * of_stack(c.decoder, 8)
            + (input_length if c.encoder_alone else target_length) * c.vocab_size * c.d_model
            + lengths * c.num_heads * c.d_kv
        )
    )


def _sparse_difference(config: ModelConfig, feed_forward: int, projection: int) -> Fraction:
    """Multiplications per token that a layer with experts has over one without."""
    switch, more = config.switch, Fraction()
    assert switch is not None
    if switch.in_feed_forward:
        more += (switch.top_k * mean_width(config) / config.d_ff - 1) * feed_forward
    if switch.in_attention:  # two projections per choice for the dense three
        more += (2 * switch.top_k - 3) * projection
    return more + (feed_forward if switch.extra_dense else 0)


def train_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's training step: the backward pass does each product twice."""
    return 3 * forward_flops(config, input_length, target_length)
