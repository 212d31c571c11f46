"""One combination of a sweep: what axes and rules come to, each after what it depends on."""

from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.model import ModelConfig
from switchx.settings import Binding
from switchx.settings.configurables import CONFIGURABLES, PARAMETERS
from switchx.settings.gin_syntax import Macro, Reference, leaves
from switchx.settings.gin_values import GinConfig
from switchx.sweeps import counting
from switchx.sweeps.rules import Rule
from switchx.sweeps.saved_gin import GIN_FILE
from switchx.sweeps.statement import BUDGET, FIGURES, STEPS, Statement

_SWITCH = "ModelConfig.switch"
_EXPERTS = "SwitchConfig.num_experts"
_MODEL = [name for name in PARAMETERS if name.split(".")[0] in ("ModelConfig", "SwitchConfig")]
_SIZE, _LENGTHS = "DataConfig.batch_size", "DataConfig.feature_lengths"


class Settling:
    """Gives settings their values one after the other, each after those it depends on."""

    def __init__(self, statement: Statement, assigned: Mapping[str, Any]) -> None:
        file = assigned.get(GIN_FILE)
        own = () if file is None else statement.files[file]
        axes = [
            Binding(name, value, "SweepConfig.axes", file="the sweep")
            for name, value in assigned.items()
            if name != GIN_FILE
        ]
        self._statement, self._assigned = statement, assigned
        # The order of the first occurrence, as a file that is read keeps it.
        self._bindings = dict(
            GinConfig.of([*statement.run, *own, *statement.flags, *axes]).bindings
        )
        self._done: set[str] = set()
        self._open: list[str] = []

    def excluded_by(self) -> Rule | None:
        """The first exclusion that is true here."""
        for rule in self._statement.exclude:
            if rule.value(self.value):
                return rule
        return None

    def bindings(self) -> list[Binding]:
        """Those of the run."""
        for target in (*self._statement.rules, _SWITCH, STEPS):
            self._settle(target)
        free = self._statement.free
        return [b for b in self._bindings.values() if b.target not in free]

    def value(self, name: str) -> Any:
        """A setting's value, a macro's or a parameter's; or one of FIGURES."""
        if name in FIGURES:
            return self._figure(name)
        if name == GIN_FILE:
            return self._assigned[name]
        self._settle(name)
        if name in self._bindings:
            return GinConfig(self._bindings).value(name)
        cls, _, field = name.partition(".")
        return getattr(CONFIGURABLES[cls], field)  # a default of its own

    def _settle(self, target: str) -> None:
        if target in self._done:
            return
        if target in self._open:
            circle = " -> ".join([*self._open[self._open.index(target) :], target])
            raise UserError(f"SweepConfig.rules depend on each other in a circle ({circle}).")
        self._open.append(target)
        if target in self._statement.rules:
            self._obey(target, self._statement.rules[target])
        elif target == STEPS and self._statement.has_budget:
            self._bind(STEPS, self._steps(), f"from {BUDGET}")
        elif target in self._bindings:
            for part in leaves(self._bindings[target].value):
                if isinstance(part, Macro):
                    self._settle(part.name)
        if target == _SWITCH:
            self._one_expert_is_dense()
        self._open.pop()
        self._done.add(target)

    def _obey(self, target: str, rule: Any) -> None:
        value = rule.value(self.value) if isinstance(rule, Rule) else rule
        text = rule.text if isinstance(rule, Rule) else repr(rule)
        self._bind(target, value, f"rule {text!r} of SweepConfig.rules")

    def _bind(self, target: str, value: Any, origin: str) -> None:
        self._bindings[target] = Binding(target, value, origin, file="the sweep")

    def _one_expert_is_dense(self) -> None:
        bound = self._bindings.get(_SWITCH)
        if bound is None or not isinstance(bound.value, Reference):
            return
        if _EXPERTS in self._bindings and self.value(_EXPERTS) == 1:
            counting.check_equal_flops(self._model(experts=None))
            self._bind(_SWITCH, None, "NUM_EXPERTS=1")

    def _model(self, experts: int | None = 1) -> ModelConfig:
        """The model that the settings make; without `experts`, one of more than a single expert."""
        for name in _MODEL:
            if experts is not None or name != _SWITCH:
                self._settle(name)
        bindings = dict(self._bindings)
        if experts is None:
            bindings[_EXPERTS] = Binding(_EXPERTS, max(2, self.value("SwitchConfig.top_k")), "")
        found: ModelConfig = GinConfig(bindings).build("ModelConfig")
        return found

    def _figure(self, name: str) -> int:
        if name == "sequence_flops":
            return self._flops()
        return counting.parameters(self._model(), per_token=name == "parameters_per_token")

    def _flops(self) -> int:
        lengths = self.value(_LENGTHS)
        counted = self._statement.config.counted
        return counting.sequence_flops(
            self._model(), lengths["inputs"], lengths["targets"], counted
        )

    def _steps(self) -> int:
        budget, step = self.value(BUDGET), self.value(_SIZE) * self._flops()
        if not isinstance(budget, int | float) or budget <= 0:
            raise UserError(f"{BUDGET}={budget!r} must be a number above 0.")
        if budget < step:
            raise UserError(
                f"{BUDGET}={budget:g} is less than the {step:.4g} FLOPs of one step: raise it, or "
                "lower BATCH_SIZE or TASK_FEATURE_LENGTHS."
            )
        return int(budget // step)
