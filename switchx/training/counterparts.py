"""What each parameter of a model is made of where it starts from another's: layer by layer.

Parameters of equal layers are stacked. Two models of other depths, or with experts in other layers,
have other stacks: so each layer of a parameter is found by itself.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from switchx.errors import UserError
from switchx.model import Model
from switchx.model.shape import StackShape
from switchx.training.adapting import BIAS, ROUTER, RULES, Part, Parts, counted, named
from switchx.training.config import StartConfig
from switchx.training.merging import OF_EXPERT

_LAYERS = "layers"
_DENSE, _EXPERTS = "feed_forward/dense/", "feed_forward/switch/experts/"
_EXPERTS_OF = {dense: of_expert for of_expert, dense in OF_EXPERT.items()}


def parts_of(config: StartConfig, there: Model, wanted: Model) -> Parts:
    """Of each parameter of `wanted` its parts, one for each layer in it; None is new.

    Raises:
      UserError: a parameter cannot be made of what is there, by its name.
    """
    found, shapes, axes = named(there.shapes), named(wanted.shapes), named(wanted.axes)
    _check_named(config, found, [*shapes])
    look = _Look(config, there, wanted, found, shapes, axes)
    parts = {name: look.parts(name) for name in shapes}
    if config.feed_forwards is not None and not look.in_place:
        raise UserError(
            f"START_FEED_FORWARDS={config.feed_forwards!r} does nothing: no layer of this model "
            f"has a dense feed-forward where START_FROM={config.from_run!r} has experts; leave it "
            "out."
        )
    return parts


def _check_named(config: StartConfig, there: Mapping[str, Any], wanted: list[str]) -> None:
    """What START_FRESH and START_EXPERTS name must be there."""
    for pattern in config.fresh:
        if not fnmatch.filter(wanted, pattern):
            raise UserError(
                f"START_FRESH={tuple(config.fresh)!r}: {pattern!r} is no parameter of this model: "
                f"name some as in model_info.txt, such as {sorted(wanted)[0]!r}."
            )
    if config.experts is None:
        return
    E = next((leaf.shape[-1] for name, leaf in there.items() if name.endswith(ROUTER)), 0)
    chosen = [*config.experts]
    if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*range(E)}:
        numbers = f"different numbers from 0 to {E - 1}" if E else "None"
        raise UserError(
            f"START_EXPERTS={tuple(chosen)!r} must be {numbers}: START_FROM={config.from_run!r} "
            f"has {E or 'no'} experts."
        )


class _Look:
    """Finds the parts of one model's parameters in another's."""

    def __init__(
        self,
        config: StartConfig,
        there: Model,
        wanted: Model,
        found: Mapping[str, Any],
        shapes: Mapping[str, Any],
        axes: Mapping[str, tuple[str | None, ...]],
    ):
        self.config, self.found, self.shapes, self.axes = config, found, shapes, axes
        self.there, self.wanted = there.config.stacks, wanted.config.stacks
        self.in_place = False  # whether any feed-forward takes the place of experts
        self.layers = {
            stack: self._layers(stack, self.there[stack], shape)
            for stack, shape in self.wanted.items()
            if stack in self.there
        }

    def parts(self, name: str) -> list[Part | None]:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.config.fresh):
            return [None]
        stack, _, within = name.partition("/")
        if not within.startswith("blocks"):
            return [self._part(name, Part(name))]
        blocks, layer, rest = within.split("/", 2)
        numbers = self.wanted[stack].layers_of(blocks, layer)
        return [self._of_layer(name, stack, number, rest) for number in numbers]

    def _layers(self, stack: str, there: StackShape, wanted: StackShape) -> Sequence[int]:
        by_depth, by_number = (kind in self.config.changes for kind in (_LAYERS, "sizes"))
        if there.num_layers != wanted.num_layers and not (by_depth or by_number):
            raise UserError(
                f"START_FROM={self.config.from_run!r} has {there.num_layers} {stack} layers, and "
                f"this model {wanted.num_layers}: set START_CHANGES=('layers',) to take each from "
                "the relative depth, or the layers of that run."
            )
        return layers_by_depth(there, wanted) if by_depth else range(wanted.num_layers)

    def _of_layer(self, name: str, stack: str, number: int, rest: str) -> Part | None:
        shape = self.there.get(stack)
        number = self.layers[stack][number] if shape else number
        if shape is None or number >= shape.num_layers:
            self._check_missing(name)
            return None
        blocks, layer, block = shape.place(number)
        of_layer = f"{stack}/{blocks}/layer_{layer}/"
        if of_layer + rest in self.found:
            return self._part(name, Part(of_layer + rest, block))
        in_place = rest.startswith(_DENSE) and _has(self.found, of_layer + _EXPERTS)
        if not in_place or _has(self.shapes, name.partition(_DENSE)[0] + _EXPERTS):
            self._check_missing(name)
            return None
        experts = of_layer + _EXPERTS + _EXPERTS_OF[rest.removeprefix(_DENSE)]
        return self._merged(name, Part(experts, block, f"{stack} {number}"))

    def _part(self, name: str, part: Part) -> Part | None:
        if part.name not in self.found:
            self._check_missing(name)
            return None
        there, wanted = self.found[part.name].shape, self.shapes[name].shape
        return part if self._fits(name, there, wanted) else None

    def _check_missing(self, name: str) -> None:
        if "sizes" not in self.config.changes and not name.endswith(BIAS):
            raise UserError(
                f"START_FROM={self.config.from_run!r} has no {name}, which this model has: let it "
                f"be new with START_FRESH=({name!r},), or start from another run."
            )

    def _merged(self, name: str, part: Part) -> Part | None:
        config, self.in_place = self.config, True
        if config.feed_forwards is None:
            raise UserError(
                f"START_FROM={config.from_run!r} has experts in {part.merged}, and this model a "
                "dense feed-forward: set START_FEED_FORWARDS to what it begins with, such as "
                "'mean' of the experts, or 'fresh'."
            )
        if config.feed_forwards == "fresh":
            return None
        N, E, *there = self.found[part.name].shape
        wanted, at = self.shapes[name].shape, self.axes[name].index("mlp") - 1
        kept = len(config.experts) if config.experts is not None else E
        if config.feed_forwards == "top_k" and wanted[at + 1] <= kept * there[at]:
            there[at] = wanted[at + 1]  # it gathers as many neurons as it takes
        return part if self._fits(name, (N, *there), wanted) else None

    def _fits(self, name: str, there: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether one is made of the other by rules that are allowed; False if it may be new."""
        config, axes = self.config, counted(name, self.axes[name])
        what = f"START_FROM={config.from_run!r} has {name} of the shape {list(there)}, and this"
        if len(there) != len(wanted):
            whys = ["start from another run, or make it new."]
        else:
            whys = [*_why_not(config, there, wanted, axes)]
        if whys and "sizes" in config.changes and config.experts is not None:
            raise UserError(
                f"START_EXPERTS={tuple(config.experts)!r} is of experts as they are, and with "
                f"START_CHANGES={tuple(config.changes)!r} parameters of other sizes, as {name}, "
                "begin anew: leave one of the two out."
            )
        if whys and "sizes" not in config.changes:
            raise UserError(f"{what} model of {list(wanted)}: {whys[0]}")
        return not whys


def _has(names: Mapping[str, Any], folder: str) -> bool:
    return any(name.startswith(folder) for name in names)


def _why_not(
    config: StartConfig,
    there: tuple[int, ...],
    wanted: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> Iterator[str]:
    """Of each dimension that does not fit, what to do about it."""
    for old, new, axis in zip(there, wanted, axes, strict=True):
        rule = RULES.get(axis or "")
        kept = len(config.experts) if rule == "experts" and config.experts is not None else old
        if kept == new or axis == _LAYERS:
            continue
        if rule is None:
            yield (
                "only experts, layers and vocabulary may differ. Set the sizes of that run, or "
                "START_CHANGES=('sizes',) to begin anew with what differs."
            )
        elif new < kept:
            yield {
                "experts": "choose which to keep with START_EXPERTS.",
                "vocabulary": "a shorter vocabulary cannot start from it.",
            }[rule]
        elif rule not in config.changes:
            yield f"set START_CHANGES=({rule!r},) to allow that, or the sizes of that run."


def layers_by_depth(there: StackShape, wanted: StackShape) -> list[int]:
    """Of each layer the one there at its relative depth.

    By whole blocks where that is possible, so that layers with experts stay such.
    """
    rows = [(row.name, row.sparse) for row in there.blocks]
    if rows == [(row.name, row.sparse) for row in wanted.blocks]:
        pairs = [*zip(there.blocks, wanted.blocks, strict=True)]
        return [
            old.first_layer + block * old.num_blocks // new.num_blocks * new.period + within
            for old, new in pairs
            for block in range(new.num_blocks)
            for within in range(new.period)
        ]
    period = there.blocks[0].period
    if len(rows) > 1 or wanted.num_layers % period:
        period = 1
    old, new = there.num_layers // period, wanted.num_layers // period
    return [
        layer // period * old // new * period + layer % period for layer in range(wanted.num_layers)
    ]


def merged_in(parts: Parts) -> list[str]:
    """The layers there whose experts a feed-forward is made of, by their names in order."""
    merged = (part.merged for own in parts.values() for part in own if part and part.merged)
    return sorted({*merged}, key=lambda layer: (layer[0] != "e", int(layer.split()[1])))


def record_of(
    parts: Parts, there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, list[str] | int]:
    """What start.json says of them: see docs/run_directory.md.

    Of a stacked parameter of which that holds in part, the blocks are named, as "name[6, 7]".

    Args:
      there, wanted: parameters by name.
    """
    taken = {name: [part for part in own if part] for name, own in parts.items()}
    used: dict[str, set[int | None]] = {}
    for part in (part for own in taken.values() for part in own):
        used.setdefault(part.name, set()).add(part.block)
    fresh = {
        name: [block for block, part in enumerate(own) if part is None]
        for name, own in parts.items()
        if None in own
    }
    left_out = {
        name: [n for n in range(leaf.shape[0]) if n not in used[name]] if name in used else []
        for name, leaf in there.items()
        if name not in used or None not in used[name]
    }
    return {
        "taken": sum(map(bool, taken.values())),
        "fresh": [_named(name, blocks if taken[name] else []) for name, blocks in fresh.items()],
        "left_out": [
            _named(name, numbers)
            for name, numbers in left_out.items()
            if (numbers or name not in used) and name not in fresh
        ],
        "changed": [name for name, own in taken.items() if _is_changed(own, there, wanted[name])],
    }


def _named(name: str, blocks: Sequence[int]) -> str:
    return f"{name}{list(blocks)}" if blocks else name


def _is_changed(own: Sequence[Part], there: Mapping[str, Any], wanted: Any) -> bool:
    """Whether it is of another shape there, or has more layers here."""
    if len({*own}) < len(own):
        return True
    return any(
        there[part.name].shape[first:] != wanted.shape[first:]
        for part in own
        for first in [part.block is not None]
        if not part.merged
    )
