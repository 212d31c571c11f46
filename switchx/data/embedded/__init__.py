"""The rows of the embedded corpora without TensorFlow: bit for bit those that seqio makes.

TensorFlow takes longer to import than a small run to start, and its pipeline for a row longer than
the row. What a row is follows from numbers that TensorFlow draws by counting (`draws`), in an order
that follows from them too (`order`); so any row can be made from its number alone (`rows`).
"""

from switchx.data.embedded.stream import EmbeddedStream, ensure, evaluation_batches, reads

__all__ = ["EmbeddedStream", "ensure", "evaluation_batches", "reads"]
