"""The embedding's rows in the order of our ids: padding at 0 (`switchx.data.tasks.ids`)."""

import dataclasses
from pathlib import Path

import numpy as np

from switchx.interop.safetensors import Tensor


@dataclasses.dataclass(frozen=True)
class Exchanged:
    """A tensor, [V, D], whose rows 0 and `pad` have changed places; read as Tensor is."""

    tensor: Tensor
    pad: int

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.tensor.file

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self.tensor.shape

    def read(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part of the array."""
        part = np.array(self.tensor.read(index))
        start, stop, _ = index[0].indices(self.shape[0])
        for here, there in ((0, self.pad), (self.pad, 0)):
            if start <= here < stop:
                part[here - start] = self.tensor.read((slice(there, there + 1), *index[1:]))[0]
        return part


def exchanged(array_VD: np.ndarray, pad: int) -> np.ndarray:
    """The array with its rows 0 and `pad` in each other's place."""
    order_V = np.arange(len(array_VD))
    order_V[[0, pad]] = order_V[[pad, 0]]
    return array_VD[order_V]
