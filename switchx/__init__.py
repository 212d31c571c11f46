"""switchx: pretraining Switch Transformers end to end in JAX and Flax."""
