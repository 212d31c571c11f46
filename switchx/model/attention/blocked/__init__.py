"""softmax(query key + bias) value, and its gradients, by blocks that never leave a TPU's chip."""

from switchx.model.attention.blocked.calls import backward, forward
from switchx.model.attention.blocked.tiles import fits

__all__ = ["backward", "fits", "forward"]
