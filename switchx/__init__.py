"""switchx: pretraining Switch Transformers end to end in JAX and Flax."""

__version__ = "0.2.0.dev0"
