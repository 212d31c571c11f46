"""How long the network needs at least for a step's collectives: what each link has to carry.

Chips of a TPU slice are joined to their neighbours along the dimensions of a torus, so what goes
further is carried by several links. GPUs of a node are behind a switch, where every pair is near.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
from jax.sharding import Mesh

from switchx.planning.program import Collective, least_sent
from switchx.planning.topology import Topology


@dataclasses.dataclass(frozen=True)
class Network:
    """The chips of a mesh, where they lie, and what joins them.

    Attributes:
      axes: the mesh's axes and sizes, in its order.
      slices: int [chips], the slice or node of each, in the mesh's order.
      places: int [chips, dimensions], where each lies in its slice's torus; no dimensions behind a
        switch.
      wraps: of each dimension, whether its last chip is joined to its first.
      link: bytes/s through one link, one way; behind a switch a chip's own.
      between: bytes/s that a chip can send to other slices or nodes.
    """

    axes: dict[str, int]
    slices: np.ndarray
    places: np.ndarray
    wraps: tuple[bool, ...]
    link: float
    between: float

    @classmethod
    def of(cls, mesh: Mesh, topology: Topology) -> "Network":
        """Of a mesh of the topology's devices.

        Raises:
          ValueError: on CPU devices, whose rates are not known.
        """
        chip, devices = topology.chip, list(mesh.devices.flat)
        if chip is None:
            raise ValueError("how fast CPU devices exchange data is not known")
        if chip.is_tpu:
            slices = [getattr(device, "slice_index", 0) or 0 for device in devices]
            places = np.array([device.coords[: chip.torus_axes] for device in devices])
        else:
            slices = [device.id // topology.grid[0] for device in devices]
            places = np.empty((len(devices), 0), int)
        return cls(
            axes=dict(mesh.shape),
            slices=np.array(slices),
            places=places,
            wraps=topology.wraps,
            link=chip.fabric_rate / max(1, 2 * chip.torus_axes),
            between=chip.network_rate or np.inf,  # of one slice, between which nothing passes
        )

    def seconds(self, collectives: Iterable[Collective]) -> dict[str, float]:
        """Least time of all of them: "ici" within slices, "dcn" between slices or nodes.

        Collectives along different dimensions may run at once, each on its links. So of every set
        of dimensions: what only these can carry, over the links that they have.
        """
        demands, away = [], 0.0
        for each in collectives:
            within, out = self._demand(each)
            demands += within
            away += out
        least = 0.0
        for dims in self._sets_of_dimensions():
            amount = sum(size for needed, size in demands if needed <= dims)
            links = sum(self._links(dim) for dim in dims) if dims else 1
            least = max(least, amount / (links * self.link) if amount else 0.0)
        return {"ici": least, "dcn": away / self.between}

    def _sets_of_dimensions(self) -> list[frozenset[int]]:
        dims = range(len(self.wraps))
        sets = [frozenset(c) for n in dims for c in itertools.combinations(dims, n + 1)]
        return sets or [frozenset()]

    def _demand(self, collective: Collective) -> tuple[list[tuple[frozenset[int], float]], float]:
        """What it asks of a chip's links in its slice, as `_through_links`, and bytes away from it.

        Among r slices with m chips of a group each, sums are scattered within a slice, then summed
        between the slices, then gathered within: between slices each chip has 1/m of the array.
        Gathering and scattering are half of that. In an exchange m of the n parts stay in the
        slice. Of a permutation at least one chip's array leaves it.
        """
        groups = self._groups(collective.axes)
        kind, size, n = collective.kind, collective.bytes, groups.shape[1]
        slices = self.slices[groups]
        m = int((slices == slices[:, :1]).sum(1).max())
        if m == n:
            return self._through_links(kind, size, groups, m), 0.0
        if kind == "collective-permute":
            return [], size
        exchange = kind.endswith("all-to-all")
        away = size * (n - m) / n if exchange else least_sent(kind, size, -(-n // m)) / m
        return self._through_links(kind, size, groups, m), away

    def _through_links(
        self, kind: str, size: int, groups: np.ndarray, m: int
    ) -> list[tuple[frozenset[int], float]]:
        """Sets of dimensions, and bytes through a chip's links along these together.

        Of the chip with the fewest links, among the m chips of a group in one slice.

        Gathering and summing (Chan et al. 2007, as `least_sent`): every chip must take in what it
        has not, through the links along the dimensions in which its group extends; those at the
        end of a line have one.

        Exchanges: a message that goes d chips along a dimension takes d of its links. Around a
        ring all these over all links is the least time; on a line, what has to pass its fullest
        link (the bisection, Dally and Towles 2004, "Principles and practices of interconnection
        networks", section 3.3).
        """
        if m == 1:
            return []
        if not kind.endswith("all-to-all"):
            return [(self._extent(groups), least_sent(kind, size, m))]
        part = size / groups.shape[1]
        if not self.wraps:
            return [(frozenset(), part * (m - 1))]
        loads = {dim: self._load(dim, groups) for dim in range(len(self.wraps))}
        return [(frozenset([dim]), load * part * self._links(dim)) for dim, load in loads.items()]

    def _groups(self, axes: tuple[str, ...]) -> np.ndarray:
        """int [groups, chips of each]: which chips take part together, along these axes."""
        order = [axis for axis in self.axes if axis not in axes] + list(axes)
        chips = np.arange(len(self.slices)).reshape(list(self.axes.values()))
        chips = chips.transpose([list(self.axes).index(axis) for axis in order])
        return chips.reshape(-1, int(np.prod([self.axes[axis] for axis in axes])))

    def _extent(self, groups: np.ndarray) -> frozenset[int]:
        """The dimensions along which chips of a group in one slice differ."""
        same = self.slices[groups] == self.slices[groups[:, :1]]
        apart = self.places[groups] != self.places[groups[:, :1]]
        return frozenset(np.flatnonzero((apart & same[..., None]).any((0, 1))).tolist())

    def _links(self, dim: int) -> int:
        """How many links along it the least favoured chip has, each one way."""
        return 2 if self.wraps[dim] else 1

    def _load(self, dim: int, groups: np.ndarray) -> float:
        """Messages through a link along `dim`, one way: the fullest on a line, the mean on a ring.

        Each chip sends one to each other of its group in its slice.
        """
        k = int(self.places[:, dim].max()) + 1
        several = int(self.slices.max()) + 1
        row = np.arange(len(groups))[:, None] * several + self.slices[groups]
        held = np.zeros((len(groups) * several, k))
        np.add.at(held, (row, self.places[groups, dim]), 1)
        pairs = held.T @ held  # from one place along the dimension to another
        if not self.wraps[dim]:
            across = max((pairs[:x, x:].sum() for x in range(1, k)), default=0.0)
            return float(across * k / len(self.slices))
        apart = np.abs(np.arange(k)[:, None] - np.arange(k))
        return float((pairs * np.minimum(apart, k - apart)).sum() / (2 * len(self.slices)))
