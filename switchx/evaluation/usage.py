"""How much the tokens of some texts use each expert, layer by layer."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from switchx.evaluation.inspection.seen import look
from switchx.model import Params
from switchx.training.batches import HostBatch
from switchx.training.metrics import layer_names
from switchx.training.state import Setup


@dataclasses.dataclass(frozen=True)
class Use:
    """Of the experts of one layer, or of its attention.

    Attributes:
      name: of `switchx.training.metrics.layer_names`.
      load_E: float64, each expert's share of the tokens' choices, before any expert is full.
      load_gate_E: float64, the same with each choice weighted by its gate.
    """

    name: str
    load_E: np.ndarray
    load_gate_E: np.ndarray

    def by(self, criterion: str) -> np.ndarray:
        """float64 [E], what a criterion ranks the experts by: a choice's mean gate is "gate"."""
        if criterion == "gate":
            return self.load_gate_E / np.where(self.load_E > 0, self.load_E, 1.0)
        return {"load": self.load_E, "load_gate": self.load_gate_E}[criterion]


def usage(
    setup: Setup,
    params: Params,
    batches: Iterable[HostBatch],
    read: Callable[[], None] = lambda: None,
) -> list[Use]:
    """What the tokens of some batches use, as evaluation routes them; padding uses nothing.

    Each layer's load sums to 1, or to 0 where no token comes by.

    Args:
      read: is called after each batch.
    """
    switch = setup.model.config.switch
    if switch is None:
        return []
    E, names = switch.num_experts, layer_names(setup.model.config)
    count_NE, gate_NE = np.zeros((len(names), E)), np.zeros((len(names), E))
    for batch in batches:
        seen = look(setup, params, [[batch]])
        layers = ((stack, n) for stack in seen for n in range(len(stack.layers)))
        for row, (stack, n) in enumerate(layers):
            expert_TJ, gate_TJ, asked_TJ = stack.asked(n, switch)
            chosen, gates = expert_TJ[asked_TJ], gate_TJ[asked_TJ]
            count_NE[row] += np.bincount(chosen, minlength=E)
            gate_NE[row] += np.bincount(chosen, gates, minlength=E)
        read()
    total_N1 = np.maximum(count_NE.sum(axis=1, keepdims=True), 1.0)
    rows = zip(names, count_NE / total_N1, gate_NE / total_N1, strict=True)
    return [Use(*row) for row in rows]


def mean_use(sources: Sequence[Sequence[Use]]) -> list[Use]:
    """Of several texts, each of which counts alike whatever its length."""
    return [
        Use(
            of[0].name,
            np.mean([use.load_E for use in of], axis=0),
            np.mean([use.load_gate_E for use in of], axis=0),
        )
        for of in zip(*sources, strict=True)
    ]
