"""Counts the products of a traced function: what XLA will multiply, without compiling."""

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from switchx.model.dispatch.sorted_blocks import rows_of

# Calls that XLA inlines; other functions of functions keep theirs apart.
_INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "linear_call")


@dataclasses.dataclass(frozen=True)
class Counter:
    """Adds up FLOPs as XLA will do them: no product is done twice in one piece of code.

    Products of rows sorted by expert do as much as the tokens give them to do; they count as if
    all experts had as many.

    Attributes:
      platform: whose branch of `jax.lax.platform_dependent` counts.
      whole_blocks: whether an expert's last block of rows counts as full, as it is computed.
    """

    platform: str
    whole_blocks: bool

    def count(self, traced: ClosedJaxpr) -> int:
        """FLOPs of its products, all devices together."""
        return self._function(traced.jaxpr)

    def _function(self, jaxpr: Jaxpr) -> int:
        """Of a function that shares no values with its surroundings: a loop's body, a branch."""
        values = _Values()
        flops, _ = self._inline(jaxpr, [values.new() for _ in jaxpr.invars], values)
        return flops

    def _inline(
        self, jaxpr: Jaxpr, inputs: Sequence[Hashable], values: "_Values"
    ) -> tuple[int, list[Hashable]]:
        """FLOPs of a function's body among other code, and which values it returns.

        XLA computes equal values once: attention's weights, for one, where the backward pass
        computes them again right after a recomputed forward pass has.
        """
        known: dict[Any, Hashable] = dict(zip(jaxpr.invars, inputs, strict=True))
        read = lambda var: values.constant(var) if isinstance(var, Literal) else known[var]  # noqa: E731
        total = 0
        for var in jaxpr.constvars:
            known[var] = values.new()
        for eqn in jaxpr.eqns:
            arguments = [read(var) for var in eqn.invars]
            if eqn.primitive.name in _INLINED:
                (inner,) = _functions(eqn)
                flops, results = self._inline(inner, arguments, values)
            else:
                results, is_new = values.of(eqn, arguments)
                flops = self._flops(eqn) if is_new else 0
            total += flops
            known |= zip(eqn.outvars, results, strict=True)
        return total, [read(var) for var in jaxpr.outvars]

    def _flops(self, eqn: JaxprEqn) -> int:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            terms = math.prod(_shape(eqn.invars[0])[axis] for axis in contracted)
            return 2 * terms * math.prod(_shape(eqn.outvars[0]))
        if name == "ragged_dot_general":
            lhs, _, (experts,) = map(_shape, eqn.invars[:3])
            share, _ = _rows(eqn) or (lhs[0] // experts, 1)
            return 2 * math.prod(lhs[1:]) * _shape(eqn.outvars[0])[-1] * share * experts
        if name == "pallas_call":
            return self._kernel(eqn)
        inner = [self._function(function) for function in _functions(eqn)]
        if name == "cond":
            return self._branch(params, inner)
        if name == "while" and (rows := _rows(eqn)):
            return self._blocks_of_rows(*rows, sum(inner))
        if name == "scan":
            return params["length"] * sum(inner)
        return sum(inner) * (params["mesh"].size if name == "shard_map" else 1)

    def _kernel(self, eqn: JaxprEqn) -> int:
        """What it says of itself, and as much more as its blocks have other experts' rows.

        An expert's rows begin where those before it end, in the middle of a block or not.
        """
        flops, rows = eqn.params["cost_estimate"].flops, _rows(eqn)
        if not (rows and self.whole_blocks):
            return flops
        share, block = rows
        shapes = map(_shape, (*eqn.invars, *eqn.outvars))
        *_, (_, inputs, outputs) = (shape for shape in shapes if len(shape) == 3)  # their kernels'
        experts = flops // (2 * share * inputs * outputs)  # there may be kernels of other layers
        starts = range(0, (experts + 1) * share, share)
        blocks = sum(-(-end // block) - start // block for start, end in itertools.pairwise(starts))
        return flops * blocks * block // (experts * share)

    def _branch(self, params: dict[str, Any], branches: list[int]) -> int:
        """The platform's; of another conditional the largest."""
        platforms = params.get("branches_platforms")
        if not platforms:
            return max(branches)
        mine = (i for i, names in enumerate(platforms) if names is None or self.platform in names)
        return branches[next(mine)]

    def _blocks_of_rows(self, share: int, block: int, flops: int) -> int:
        """Of the loop over one expert's rows, whose body multiplies a block."""
        return flops * -(-share // block) if self.whole_blocks else flops * share // block


class _Values:
    """Numbers for values, the same for equal ones: results of one operation on equal values."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._results: dict[Hashable, list[Hashable]] = {}

    def new(self) -> Hashable:
        return next(self._numbers)

    def constant(self, literal: Literal) -> Hashable:
        return (str(literal.val), str(literal.aval))

    def of(self, eqn: JaxprEqn, arguments: list[Hashable]) -> tuple[list[Hashable], bool]:
        """The numbers of an operation's results, and whether they are new."""
        # Not every parameter can be hashed. Functions are taken to differ: their text is long.
        how = id(eqn) if any(_functions(eqn)) else str(eqn.params)
        key = (eqn.primitive.name, how, *arguments)
        is_new = key not in self._results
        if is_new:
            self._results[key] = [self.new() for _ in eqn.outvars]
        return self._results[key], is_new


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def _rows(eqn: JaxprEqn) -> tuple[int, int] | None:
    """How many rows each expert has, and a block, in a product of sorted rows."""
    return rows_of(str(eqn.source_info.name_stack))


def _functions(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The traced functions among an operation's parameters."""
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else [value]:
            function: Any = getattr(each, "jaxpr", each)
            if hasattr(function, "eqns"):
                yield function
