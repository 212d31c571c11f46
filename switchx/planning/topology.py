"""From the names that users know ("v5p-1024", "2xv5e-256", "8xh100x8", "cpu:8") to chips."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator

from switchx.errors import UserError
from switchx.planning.chips import CHIPS, Chip

# The larger of v4 and v5p are whole cubes of 4x4x4 chips, in any cuboid that fits (Google Cloud
# documentation, "TPU v4", "TPU v5p", and "Plan TPUs in GKE"); the smaller are parts of one cube.
_PARTS_OF_A_CUBE = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_LARGEST_CUBOID = {"v4": ((16, 16, 16), 4096), "v5p": ((16, 16, 24), 6144)}
# The same pages for v5e and v6e list every shape.
_RECTANGLES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v5": "v5p"}
_MOST_CPUS = 1024

EXAMPLES = "v5p-1024, v5p:8x8x8, v5e-256, 2xv5e-256, h100x8, 8xh100x8 or cpu:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips and how they are wired.

    Attributes:
      chip: its kind; None for CPU devices of this machine, whose rates are not known.
      grid: chips of one slice along its dimensions; of one node for GPUs; (N,) for CPU devices.
      slices: TPU slices, or GPU nodes, joined by the slower network.
    """

    chip: Chip | None
    grid: tuple[int, ...]
    slices: int = 1

    @property
    def num_chips(self) -> int:
        return self.slices * math.prod(self.grid)

    @property
    def hosts(self) -> int:
        """Machines; a slice smaller than one has one."""
        if self.chip is None:
            return 1
        return self.slices * max(1, math.prod(self.grid) // self.chip.chips_per_host)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Of each dimension of a TPU slice, whether its last chip is joined to its first.

        v4 and v5p: of whole cubes, by optical switches; v5e and v6e: of 16 chips alone (jax-ml,
        "How to scale your model", part 2, tpus.md: "TPU networking"). A slice of n x n x 2n may
        be wired as a twisted torus, which is not known here: its exchanges then take less.
        """
        if self.chip is None or not self.chip.is_tpu:
            return ()
        if self.chip.torus_axes == 2:
            return tuple(size == 16 for size in self.grid)
        return (all(size % 4 == 0 for size in self.grid),) * len(self.grid)

    @property
    def shape(self) -> str:
        """The grid as the compiler wants it: "8x8x8"."""
        return "x".join(map(str, self.grid))

    @property
    def name(self) -> str:
        """One name for every spelling: "v5p:8x8x8", "2xv5e:16x16", "8xh100x8", "cpu:8"."""
        several = f"{self.slices}x" if self.slices > 1 else ""
        if self.chip is None:
            return f"cpu:{self.shape}"
        return f"{several}{self.chip.name}{':' if self.chip.is_tpu else 'x'}{self.shape}"


def parse(name: str) -> Topology:
    """Reads a name.

    TPUs: FAMILY-N as Google Cloud names slices (v4 and v5p count TensorCores, two a chip; v5e and
    v6e count chips), or FAMILY:AxBxC in chips; several slices are 2xFAMILY-N. GPUs: KINDxN is a
    node, 8xKINDxN eight nodes. cpu:N is N devices of this machine.

    Raises:
      UserError: naming what exists nearest to it.
    """
    number = r"\d{1,9}"
    pattern = rf"(?:({number})x)?([a-z]\w*?)(?:([-:x])({number}(?:x{number}){{0,3}}))?"
    match = re.fullmatch(pattern, name.strip().lower(), re.ASCII)
    if not match:
        raise _unknown(name)
    slices, family, separator, size = match.groups()
    family = _ALIASES.get(family, family)
    if slices == "0":
        raise UserError(f"--topology={name}: the number of slices is a whole number from 1.")
    if family == "cpu":
        return _cpu(name, slices, size)
    if family not in CHIPS:
        raise _unknown(name)
    chip = CHIPS[family]
    if size is None or (separator == "x") == chip.is_tpu:
        raise UserError(f"--topology={name} must say how many chips: {_example(chip)}.")
    grid = (_tpu_grid if chip.is_tpu else _node)(name, chip, separator, size)
    if int(slices or 1) > 1 and chip.network_rate is None:
        raise UserError(
            f"--topology={name}: how fast {chip.name}'s {'slices' if chip.is_tpu else 'nodes'} are "
            "joined is not published: plan for one, or for another chip."
        )
    return Topology(chip, grid, int(slices or 1))


def family(name: str) -> list[Topology]:
    """Every single slice of a family, from the smallest, one for each number of chips (the one
    nearest to a cube); for GPUs, one node and then 2, 4, 8, ... up to 64 of them.

    Raises:
      UserError: if it is not a family.
    """
    name = _ALIASES.get(name.strip().lower(), name.strip().lower())
    if name not in CHIPS:
        raise UserError(f"--topology={name} with --fit must be a family: {', '.join(CHIPS)}.")
    chip = CHIPS[name]
    if not chip.is_tpu:
        return [Topology(chip, (n,)) for n in (1, 2, 4)] + [
            Topology(chip, (chip.chips_per_host,), 2**k)
            for k in range(7 if chip.network_rate else 1)
        ]
    by_size: dict[int, tuple[int, ...]] = {}
    for grid in sorted(grids(chip), key=lambda grid: (math.prod(grid), sum(grid))):
        by_size.setdefault(math.prod(grid), grid)
    return [Topology(chip, grid) for grid in by_size.values()]


def grids(chip: Chip) -> Iterator[tuple[int, ...]]:
    """Every slice that is offered of a kind of TPU, in chips along its dimensions."""
    if chip.torus_axes == 2:
        yield from _RECTANGLES
        return
    yield from _PARTS_OF_A_CUBE
    longest, most = _LARGEST_CUBOID[chip.name]
    sides = [range(4, side + 1, 4) for side in longest]
    for grid in itertools.product(*sides):
        if sorted(grid) == list(grid) and math.prod(grid) <= most:
            yield grid


def _tpu_grid(name: str, chip: Chip, separator: str, size: str) -> tuple[int, ...]:
    if separator == ":":
        offered = {"x".join(map(str, grid)): grid for grid in grids(chip)}
    else:
        offered = {str(t.num_chips * chip.cores): t.grid for t in family(chip.name)}
    if size in offered:
        return offered[size]
    wanted = math.prod(map(int, size.split("x"))) / (1 if separator == ":" else chip.cores)
    raise UserError(
        f"--topology={name} is not a slice of {chip.name}; the nearest are "
        f"{_nearest(chip, wanted, separator)}."
    )


def _nearest(chip: Chip, wanted: float, separator: str) -> str:
    """The next smaller and the next larger slice, spelled as the user spells."""
    sizes = family(chip.name)
    smaller = [t for t in sizes if t.num_chips <= wanted][-1:]
    larger = [t for t in sizes if t.num_chips > wanted][:1]
    if separator == ":":
        return " and ".join(f"{t.name} ({t.num_chips} chips)" for t in smaller + larger)
    return " and ".join(
        f"{chip.name}-{t.num_chips * chip.cores} ({t.shape})" for t in smaller + larger
    )


def _node(name: str, chip: Chip, separator: str, size: str) -> tuple[int]:
    if separator != "x" or not size.isdigit() or int(size) not in (1, 2, 4, chip.chips_per_host):
        raise UserError(
            f"--topology={name}: a node of {chip.name} has 1, 2, 4 or {chip.chips_per_host} GPUs; "
            f"write {chip.name}x8, or 4x{chip.name}x8 for four nodes."
        )
    return (int(size),)


def _cpu(name: str, slices: str | None, size: str | None) -> Topology:
    if slices or size is None or not size.isdigit() or not 1 <= int(size) <= _MOST_CPUS:
        raise UserError(f"--topology={name}: write cpu:N, with N from 1 to {_MOST_CPUS}.")
    return Topology(None, (int(size),))


def _example(chip: Chip) -> str:
    if not chip.is_tpu:
        return f"{chip.name}x8"
    middle = family(chip.name)[5]
    return f"{chip.name}-{middle.num_chips * chip.cores} or {chip.name}:{middle.shape}"


def _unknown(name: str) -> UserError:
    return UserError(
        f"--topology={name} is not known; write for example {EXAMPLES} (TPU {_names(True)}; "
        f"GPU {_names(False)})."
    )


def _names(tpu: bool) -> str:
    return ", ".join(chip.name for chip in CHIPS.values() if chip.is_tpu == tpu)
