"""What of T5X's modules has no equal here, and why; which imports are of libraries."""

# Modules whose configurables have no equal, and why; the longest that fits.
NONE_HERE = {
    "t5x.examples.decoder_only": "a decoder alone, where switchx trains encoder-decoders",
    "t5x.models.DecoderOnlyModel": "a decoder alone, where switchx trains encoder-decoders",
    "flaxformer.architectures.t5.t5_architecture.DecoderOnly": (
        "a decoder alone, where switchx trains encoder-decoders"
    ),
    "t5x.models.EncoderOnlyModel": "an encoder alone, which T5X's files cannot ask for here",
    "t5x.contrib.moe.models.MoeEncoderOnlyModel": (
        "an encoder alone, which T5X's files cannot ask for here"
    ),
    "t5x.contrib.calm": "CALM's early exits, which switchx does not have",
    "flaxformer.architectures.calm_t5": "CALM's early exits, which switchx does not have",
    "t5x.contrib.gpu": "NVIDIA's variant, whose network has settings that are not known here",
    "flaxformer.architectures.longt5": "another attention, where switchx has T5's",
    "flaxformer.architectures.h_transformer": "another attention, where switchx has T5's",
    "flaxformer.architectures.perceiver_ar": "another attention, where switchx has T5's",
    "flaxformer.architectures.fido": "another attention, where switchx has T5's",
    "t5x.eval.evaluate": "T5X's evaluation: `switchx eval` takes a run's directory",
    "t5x.infer.infer": "T5X's inference: `switchx infer` takes a run's directory",
    "t5x.precompile.precompile": "T5X's compiling alone: see `switchx plan`",
    "t5x.export_lib": "T5X's export: `switchx export` takes a run's directory",
    "t5x.contrib.moe.checkpoints.UpcycleCheckpointer": (
        "upcycling: `switchx upcycle` makes a switch model of a dense run"
    ),
    "optax.clip": "a bound on each entry of the gradient, where switchx has CLIP_GLOBAL_NORM",
    "optax": "no optimizer of switchx: OPTIMIZER is 'adafactor', 'adamw' or 'muon'",
    "t5x.optimizers": "no optimizer of switchx: OPTIMIZER is 'adafactor', 'adamw' or 'muon'",
}
SCRIPTS = ("t5x.eval", "t5x.infer", "t5x.precompile", "t5x.export_lib")  # that files may be for
# Beside these no import names a module of the user's own.
LIBRARIES = ("__gin__", "__main__", "t5x", "flaxformer", "seqio", "flax", "jax", "optax", "t5")
