"""A teacher's logits beside a prepared set: written once, then read with the batches of a run."""
