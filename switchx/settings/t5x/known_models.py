"""The models of T5X's own examples: t5x/examples/t5/."""

from typing import Any

from switchx.settings.gin_syntax import REQUIRED, Macro, Reference

Values = dict[str, Any]

# d_model, d_ff, d_kv, heads, encoder layers, decoder layers
_T5_1_1 = {
    "tiny": (8, 16, 3, 4, 2, 2),
    "small": (512, 1024, 64, 6, 8, 8),
    "base": (768, 2048, 64, 12, 12, 12),
    "large": (1024, 2816, 64, 16, 24, 24),
    "xl": (2048, 5120, 64, 32, 24, 24),
    "xxl": (4096, 10240, 64, 64, 24, 24),
}
_T5_1_0 = {
    "small": (512, 2048, 64, 8, 6, 6),
    "base": (768, 3072, 64, 12, 12, 12),
    "large": (1024, 4096, 64, 16, 24, 24),
    "3B": (1024, 16384, 128, 32, 24, 24),
    "11B": (1024, 65536, 128, 128, 24, 24),
}
_BYT5 = {
    "small": (1472, 3584, 64, 6, 12, 4),
    "base": (1536, 3968, 64, 12, 18, 6),
    "large": (1536, 3840, 64, 16, 36, 12),
    "xl": (2560, 6720, 64, 32, 36, 12),
    "xxl": (4672, 12352, 64, 64, 36, 12),
}
_PIECES, _BYTES = "seqio.SentencePieceVocabulary", "seqio.ByteVocabulary"
T5_PIECES = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"
_MT5_PIECES = "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model"
GATED, PLAIN = ("gelu", "linear"), ("relu",)
# sizes, rows of the embedding, the vocabulary's model, activations, whether logits are tied
FAMILIES: dict[str, tuple[dict[str, tuple], int, str | None, tuple, bool]] = {
    "t5_1_1": (_T5_1_1, 32128, T5_PIECES, GATED, False),
    "t5_1_0": (_T5_1_0, 32128, T5_PIECES, PLAIN, True),
    "mt5": ({k: v for k, v in _T5_1_1.items() if k != "tiny"}, 250112, _MT5_PIECES, GATED, False),
    "byt5": (_BYT5, 384, None, GATED, False),
}
MODEL = "t5x.models.EncoderDecoderModel"


def named(name: str) -> Reference:
    """@name, without being called."""
    return Reference(name, called=False)


def _vocabulary(pieces: str | None) -> Values:
    if pieces is None:
        return {"VOCABULARY": Reference(_BYTES)}
    return {
        "VOCABULARY": Reference(_PIECES),
        f"{_PIECES}.sentencepiece_model_file": pieces,
    }


def model(cls: str, module: Any, pieces: str | None, normalizing: Any) -> Values:
    """The objective, the optimizer and the vocabulary around a network."""
    names = {
        "input_vocabulary": "VOCABULARY",
        "output_vocabulary": "VOCABULARY",
        "optimizer_def": "OPTIMIZER",
        "z_loss": "Z_LOSS",
        "label_smoothing": "LABEL_SMOOTHING",
        "loss_normalizing_factor": "LOSS_NORMALIZING_FACTOR",
    }
    return {
        "Z_LOSS": 0.0001,
        "LABEL_SMOOTHING": 0.0,
        "LOSS_NORMALIZING_FACTOR": normalizing,
        **_vocabulary(pieces),
        "OPTIMIZER": Reference("t5x.adafactor.Adafactor"),
        "MODEL": Reference(cls),
        f"{cls}.module": module,
        **{f"{cls}.{name}": Macro(macro) for name, macro in names.items()},
    }


def scalable_t5(family: str, size: str) -> Values | None:
    """t5x/examples/scalable_t5/<family>/<size>.gin."""
    found = None if size == "tiny" else t5(family, size, "scalable_t5")
    if found is None:
        return None
    name = "t5x.examples.scalable_t5.network.T5Config"
    return {**found, f"{name}.scan_layers": True, f"{name}.remat_policy": "minimal"}


def t5(family: str, size: str, example: str = "t5") -> Values | None:
    """t5x/examples/t5/<family>/<size>.gin."""
    family = "t5_1_1" if size == "tiny" else family  # as T5X has it
    sizes, rows, pieces, activations, tied = FAMILIES[family]
    if size not in sizes:
        return None
    network = f"t5x.examples.{example}.network"
    widths = ("emb_dim", "mlp_dim", "head_dim", "num_heads")
    names = (*widths, "num_encoder_layers", "num_decoder_layers")
    config = {
        **dict(zip(names, sizes[size], strict=True)),
        "vocab_size": rows,
        "dtype": "bfloat16",
        "mlp_activations": activations,
        "dropout_rate": Macro("DROPOUT_RATE"),
        "logits_via_embedding": tied,
    }
    return {
        "DROPOUT_RATE": REQUIRED,
        **model(MODEL, Reference(f"{network}.Transformer"), pieces, None),
        f"{network}.Transformer.config": Reference(f"{network}.T5Config"),
        **{f"{network}.T5Config.{name}": value for name, value in config.items()},
    }
