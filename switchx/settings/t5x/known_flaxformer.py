"""The models of flaxformer: flaxformer/t5x/configs/t5/ and /moe/."""

from switchx.settings.gin_syntax import REQUIRED, Macro, Reference
from switchx.settings.t5x.known_models import (
    FAMILIES,
    GATED,
    MODEL,
    PLAIN,
    T5_PIECES,
    Values,
    model,
    named,
)

_MOE_MODEL = "t5x.contrib.moe.models.MoeEncoderDecoderModel"
_ARCHITECTURES = "flaxformer.architectures"
_T5_ARCHITECTURE = f"{_ARCHITECTURES}.t5.t5_architecture"
_MOE_ARCHITECTURE = f"{_ARCHITECTURES}.moe.moe_architecture"
_LAYER = f"{_ARCHITECTURES}.moe.moe_layers.MoeLayer"
_ROUTER = f"{_ARCHITECTURES}.moe.routing.TokensChooseMaskedRouter"
_MLP = "flaxformer.components.dense.MlpBlock"
_LOGITS = "flaxformer.components.dense.DenseGeneral"
_EMBED = "flaxformer.components.embedding.Embed"
_ATTENTION = "flaxformer.components.attention.dense_attention.MultiHeadDotProductAttention"
_SIZES = (
    "EMBED_DIM",
    "MLP_DIM",
    "HEAD_DIM",
    "NUM_HEADS",
    "NUM_ENCODER_LAYERS",
    "NUM_DECODER_LAYERS",
)


def flaxformer(moe: bool, activations: tuple, tied: bool) -> Values:
    """flaxformer/t5x/configs/{t5,moe}/architectures/: the part of it that can be set elsewhere."""
    values: Values = {
        **dict.fromkeys((*_SIZES, "NUM_EMBEDDINGS"), REQUIRED),
        "SCALE": 1.0,
        "DROPOUT_RATE": 0.0,
        "ACTIVATION_DTYPE": "bfloat16",
        "ARCHITECTURE": Reference(f"{_T5_ARCHITECTURE}.EncoderDecoder"),
        f"{_EMBED}.num_embeddings": Macro("NUM_EMBEDDINGS"),
        f"{_EMBED}.features": Macro("EMBED_DIM"),
        f"{_ATTENTION}.num_heads": Macro("NUM_HEADS"),
        f"{_ATTENTION}.head_dim": Macro("HEAD_DIM"),
        f"{_ATTENTION}.dropout_rate": Macro("DROPOUT_RATE"),
        f"{_T5_ARCHITECTURE}.EncoderDecoder.dtype": Macro("ACTIVATION_DTYPE"),
        f"{_T5_ARCHITECTURE}.EncoderDecoder.shared_token_embedder_factory": named(_EMBED),
        f"{_T5_ARCHITECTURE}.EncoderLayer.attention": Reference(_ATTENTION),
        f"{_T5_ARCHITECTURE}.EncoderLayer.mlp": Reference(_MLP),
        f"{_T5_ARCHITECTURE}.DecoderLayer.self_attention": Reference(_ATTENTION),
        f"{_T5_ARCHITECTURE}.DecoderLayer.mlp": Reference(_MLP),
        f"{_MLP}.activations": activations,
        f"{_MLP}.intermediate_dim": Macro("MLP_DIM"),
        f"{_MLP}.intermediate_dropout_rate": Macro("DROPOUT_RATE"),
        f"{_MLP}.final_dropout_rate": 0,
        f"{_MLP}.use_bias": False,
        f"{_MLP}.kernel_init": _scaled("mlp_kernel_init"),
        f"mlp_kernel_init/{_SCALING}.scale": Macro("SCALE"),
        f"output_logits/{_LOGITS}.features": Macro("NUM_EMBEDDINGS"),
    }
    for stack, module in (("Encoder", "encoder"), ("Decoder", "decoder")):
        kind = f"Sparse{stack}" if moe else stack
        architecture = _MOE_ARCHITECTURE if moe else _T5_ARCHITECTURE
        name = f"{architecture}.{kind}"
        values |= {
            f"{_T5_ARCHITECTURE}.EncoderDecoder.{module}_factory": named(name),
            f"{name}.num_layers": Macro(f"NUM_{stack.upper()}_LAYERS"),
            f"{name}.layer_factory": named(f"{_T5_ARCHITECTURE}.{stack}Layer"),
        }
        if stack == "Decoder":
            logits = None if tied else Reference(_LOGITS, "output_logits", called=False)
            values[f"{name}.output_logits_factory"] = logits
        if moe:
            values |= _sparse(stack, module, name)
    return values | (_experts() if moe else {})


_SCALING = "flax.linen.initializers.variance_scaling"
_NORMAL = "flax.linen.initializers.normal"


def _scaled(scope: str) -> Reference:
    return Reference(_SCALING, scope)


def _sparse(stack: str, module: str, name: str) -> Values:
    layer, scope = f"{_MOE_ARCHITECTURE}.Sparse{stack}Layer", f"sparse_{module}"
    attention = "attention" if stack == "Encoder" else "self_attention"
    sparse = f"NUM_{stack.upper()}_SPARSE_LAYERS"
    layout = f"{stack.upper()}_SPARSE_LAYOUT"
    return {
        sparse: Macro(f"NUM_{stack.upper()}_LAYERS"),
        layout: Macro("moe_enums.LayerLayout.MIXED"),
        f"{name}.num_sparse_layers": Macro(sparse),
        f"{name}.sparse_layout": Macro(layout),
        f"{name}.sparse_layer_factory": named(layer),
        f"{layer}.{attention}": Reference(_ATTENTION),
        f"{layer}.mlp": Reference(_LAYER, scope),
        f"{scope}/{_LAYER}.router": Reference(_ROUTER, scope),
        f"{scope}/{_ROUTER}.batch_prioritized_routing": stack == "Encoder",
    }


def _experts() -> Values:
    weights = f"{_ARCHITECTURES}.moe.routing.RouterWeights"
    return {
        "NUM_EXPERTS": REQUIRED,
        "NUM_EXPERT_PARTITIONS": Macro("NUM_EXPERTS"),
        "NUM_MODEL_PARTITIONS": None,
        "MODEL_PARALLEL_SUBMESH": None,
        "GROUP_SIZE": 4096,
        "TRAIN_EXPERT_CAPACITY_FACTOR": 1.0,
        "EVAL_EXPERT_CAPACITY_FACTOR": 1.0,
        "EXPERT_MLP_DIM": Macro("MLP_DIM"),
        "EXPERT_DROPOUT_RATE": Macro("DROPOUT_RATE"),
        "NUM_SELECTED_EXPERTS": 1,
        "JITTER_NOISE": 0.0,
        f"{_LAYER}.num_experts": Macro("NUM_EXPERTS"),
        f"{_LAYER}.max_group_size": Macro("GROUP_SIZE"),
        f"{_LAYER}.train_capacity_factor": Macro("TRAIN_EXPERT_CAPACITY_FACTOR"),
        f"{_LAYER}.eval_capacity_factor": Macro("EVAL_EXPERT_CAPACITY_FACTOR"),
        f"{_LAYER}.expert": Reference(_MLP, "expert"),
        f"{_ROUTER}.num_selected_experts": Macro("NUM_SELECTED_EXPERTS"),
        f"{_ROUTER}.jitter_noise": Macro("JITTER_NOISE"),
        f"{_ROUTER}.ignore_padding_tokens": False,
        f"{_ROUTER}.router_weights": Reference(weights),
        f"{weights}.use_bias": False,
        f"{weights}.kernel_init": Reference(_NORMAL, "router_init"),
        f"router_init/{_NORMAL}.stddev": 0.02,
        f"expert/{_MLP}.activations": GATED,
        f"expert/{_MLP}.intermediate_dim": Macro("EXPERT_MLP_DIM"),
        f"expert/{_MLP}.intermediate_dropout_rate": Macro("EXPERT_DROPOUT_RATE"),
        f"expert/{_MLP}.kernel_init": _scaled("expert_kernel_init"),
        f"expert_kernel_init/{_SCALING}.scale": Macro("SCALE"),
    }


def flaxformer_t5(name: str) -> Values | None:
    """flaxformer/t5x/configs/t5/models/<name>.gin."""
    family, _, size = name.rpartition("_")
    family = "t5_1_0" if family == "t5" else family
    if family not in FAMILIES or size not in FAMILIES[family][0] or size == "tiny":
        return None
    sizes, rows, pieces, activations, tied = FAMILIES[family]
    return {
        **flaxformer(False, activations, tied),
        **model(MODEL, Macro("ARCHITECTURE"), pieces, None),
        **dict(zip(_SIZES, sizes[size], strict=True)),
        "NUM_EMBEDDINGS": rows,
    }


# d_model, d_ff, d_kv, heads, layers, sparse layers, experts, group size, capacity factors: training
# and evaluation
_SWITCH = {
    "base": (768, 3072, 64, 12, 12, 6, 128, 8192, 1.25, 2.0),
    "large": (1024, 4096, 64, 16, 24, 12, 128, 4096, 1.25, 2.0),
    "xxl": (4096, 10240, 64, 64, 24, 12, 128, 4096, 1.25, 4.0),
    "c": (2080, 6144, 64, 30, 15, 15, 2048, 2048, 1.0, 2.0),
}
_TOKENS_CHOOSE = {
    "tiny": (32, 64, 64, 6, 2, 1, 8, 4096, 1.25, 2.0),
    "small": (512, 1024, 64, 6, 8, 2, 32, 4096, 1.25, 2.0),
    "base": (768, 2048, 64, 12, 12, 3, 64, 4096, 1.25, 2.0),
    "large": (1024, 2816, 64, 16, 24, 6, 64, 4096, 1.25, 2.0),
    "xl": (2048, 5120, 64, 32, 24, 6, 64, 4096, 1.25, 2.0),
    "xxl": (4096, 10240, 64, 64, 24, 6, 64, 4096, 1.25, 2.0),
}
_ST_MOE = {
    "base": (768, 2048, 64, 12, 12, 3, 16, 4096, 1.25, 2.0),
    "xl": (2048, 5120, 64, 32, 24, 6, 16, 1024, 2.0, 4.0),
    "32b": (5120, 20480, 128, 64, 24, 6, 64, 4096, 1.25, 2.0),
}
_MOE_SIZES = (
    *_SIZES[:4],
    "NUM_EXPERTS",
    "GROUP_SIZE",
    "TRAIN_EXPERT_CAPACITY_FACTOR",
    "EVAL_EXPERT_CAPACITY_FACTOR",
)


def moe(kind: str, size: str) -> Values | None:
    """flaxformer/t5x/configs/moe/models/<kind>_<size>.gin."""
    kinds = {"switch": _SWITCH, "tokens_choose": _TOKENS_CHOOSE, "st_moe": _ST_MOE}
    if size not in kinds[kind]:
        return None
    *widths, layers, sparse, experts, group, train, evaluation = kinds[kind][size]
    sizes = dict(zip(_MOE_SIZES, (*widths, experts, group, train, evaluation), strict=True))
    for stack in ("ENCODER", "DECODER"):
        sizes |= {f"NUM_{stack}_LAYERS": layers, f"NUM_{stack}_SPARSE_LAYERS": sparse}
    switch = kind == "switch"
    plain = switch and size != "xxl"
    values = {
        **flaxformer(True, PLAIN if plain else GATED, tied=switch and size in ("base", "large")),
        **model(_MOE_MODEL, Macro("ARCHITECTURE"), T5_PIECES, "NUM_REAL_TARGET_TOKENS"),
        f"{_MOE_MODEL}.aux_loss_factor": Macro("AUX_LOSS_FACTOR"),
        f"{_MOE_MODEL}.router_z_loss_factor": Macro("ROUTER_Z_LOSS_FACTOR"),
        **sizes,
        "NUM_EMBEDDINGS": 32128,
        "NUM_SELECTED_EXPERTS": 1 if switch else 2,
        "AUX_LOSS_FACTOR": 0.01,
        "ROUTER_Z_LOSS_FACTOR": {"32b": 0.001}.get(size, 0.0001) if kind == "st_moe" else 0.0,
        "SCALE": 0.1,
    }
    if plain:
        values[f"expert/{_MLP}.activations"] = PLAIN
    if kind != "tokens_choose":
        values[f"sparse_encoder/{_ROUTER}.batch_prioritized_routing"] = False
    if kind == "st_moe":
        for stack in ("Encoder", "Decoder"):
            values[f"{_MOE_ARCHITECTURE}.Sparse{stack}Layer.extra_mlp"] = Reference(_MLP)
    if switch and size in ("xxl", "c"):
        values[f"{_LAYER}.min_expert_capacity"] = 2
    return values
