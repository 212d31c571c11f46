"""A model whose sizes are found in a file: what gin needs not say, and must not contradict."""

from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError
from switchx.settings.gin_syntax import Binding, Reference
from switchx.settings.gin_values import GinConfig

_SWITCH = "ModelConfig.switch"
_VOCABULARY = "DataConfig.vocabulary"  # one that came along: gin may name another
_ORIGIN = "--input"


def model_bindings(base: GinConfig, fields: Mapping[str, Any]) -> list[Binding]:
    """Bindings that say what `fields` (`switchx.interop.Source.model_fields`) says.

    Where a macro of `base` gives a parameter its value, the macro is set.
    """
    return [
        Binding(base.name_to_set(target), _in_gin(target, value), _ORIGIN, file=_ORIGIN)
        for target, value in fields.items()
    ]


def check_model(config: GinConfig, fields: Mapping[str, Any]) -> None:
    """Raises UserError for a field that gin sets to something else than the model has."""
    for target, value in fields.items():
        here = config.value(target)
        here = here is not None if target == _SWITCH else here
        if here != value and target != _VOCABULARY:
            name = config.name_to_set(target)
            raise UserError(
                f"{name}={_in_gin(target, here)!r}, but the model in --input has "
                f"{_in_gin(target, value)!r}: leave {name} out, which takes what is there."
            )


def _in_gin(target: str, value: Any) -> Any:
    """A field's value as gin has it; of the switch layers the fields only say if there are any."""
    if target != _SWITCH:
        return value
    return Reference("SwitchConfig") if value else None
