"""How do tokens reach their experts and come back? Dispatchers, each in a file of its own.

"einsum" and "index" fill each expert's slots and give equal results; "ragged" has no slots and
drops nothing. `for_answers` chooses what decoding and scoring use.
"""

from switchx.model.dispatch.dispatcher import (
    Dispatcher,
    ExpertNetworks,
    ExpertsByWidth,
    Operations,
)
from switchx.model.dispatch.einsum import EinsumDispatcher
from switchx.model.dispatch.index import IndexDispatcher
from switchx.model.dispatch.packed import packed_shares
from switchx.model.dispatch.ragged import RaggedDispatcher, for_answers
from switchx.model.dispatch.stacked import Kernel, Kernels, Stacked

DISPATCHERS: dict[str, Dispatcher] = {
    "einsum": EinsumDispatcher(),
    "index": IndexDispatcher(),
    "ragged": RaggedDispatcher(),
}

__all__ = [
    "DISPATCHERS",
    "Dispatcher",
    "ExpertNetworks",
    "ExpertsByWidth",
    "Kernel",
    "Kernels",
    "Operations",
    "Stacked",
    "for_answers",
    "packed_shares",
]
