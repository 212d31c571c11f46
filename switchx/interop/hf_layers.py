"""How many layers there are and which have experts, in the words of transformers' config.json."""

from collections.abc import Mapping
from typing import Any

from switchx.checks import at_least
from switchx.errors import UserError
from switchx.model import ModelConfig, SwitchConfig
from switchx.model.shape import StackShape

_MOST_LAYERS = 10_000  # no model has as many, and each is looked at


def read(
    config: Mapping[str, Any], file: str, with_experts: bool, encoder_alone: bool
) -> dict[str, StackShape]:
    """The layers of both stacks; of an encoder alone the decoder has none.

    Raises:
      UserError: naming the first key whose value makes no sense.
    """
    encoder = whole(config, "num_layers", file, None)
    decoder = 0 if encoder_alone else encoder
    if config.get("num_decoder_layers") is not None and not encoder_alone:
        decoder = whole(config, "num_decoder_layers", file, None)
    layers = {"encoder": encoder, "decoder": decoder}
    if not with_experts:
        return {stack: StackShape.of(count, ()) for stack, count in layers.items()}
    if max(encoder, decoder) > _MOST_LAYERS:
        raise UserError(f"{file}: num_layers={encoder} and {decoder} are more than {_MOST_LAYERS}.")
    found = {
        stack: StackShape.of(count, sparse_at(_sparse_step(config, stack, count, file), count))
        for stack, count in layers.items()
    }
    if not any(stack.num_sparse for stack in found.values()):
        raise UserError(f"{file}: no layer has experts; such a model is model_type='t5'.")
    return found


def sparse_at(step: int, num_layers: int) -> tuple[int, ...]:
    """transformers' rule: layers i with i % step == 1, all of them if step is 1, none if 0."""
    if step < 2:
        return tuple(range(num_layers * step))
    return tuple(range(1, num_layers, step))


def _sparse_step(config: Mapping[str, Any], stack: str, num_layers: int, file: str) -> int:
    key = f"{stack}_sparse_step"
    count = key if key in config else f"num_sparse_{stack}_layers"
    value = config.get(count, 3)
    at_least(f"{file}: {count}", value, 0)
    return value if count == key else step_of(value, num_layers)


def step_of(num_sparse: int, num_layers: int) -> int:
    """The step that transformers makes of a number of layers with experts.

    Of none it makes one layer, the second; of more than there are it makes none.
    """
    return num_layers // num_sparse if num_sparse else num_layers


def whole(config: Mapping[str, Any], key: str, file: str, default: int | None) -> int:
    """The value of a key, or the error that it is no number of at least 1."""
    value: int = config.get(key, default)
    at_least(f"{file}: {key}", value, 1)
    return value


def check_exportable(config: ModelConfig, switch: SwitchConfig) -> None:
    """Raises UserError where no step gives the layers that have experts."""
    for name, shape in config.stacks.items():
        if _step_and_count(shape) is None:
            own = f"{name}_sparse" if getattr(switch, f"{name}_sparse") is not None else "every"
            raise UserError(
                f"SwitchConfig.{own}={getattr(switch, own)!r}: transformers has experts in layers "
                f"1, 1 + n, 1 + 2n and so on, in all or in none, and this {name} in "
                f"{', '.join(map(str, shape.sparse_layers))}, so this model cannot be exported."
            )


def write(config: ModelConfig) -> dict[str, int]:
    """The keys that say which layers have experts."""
    found = {}
    for stack, shape in config.stacks.items():
        pair = _step_and_count(shape)
        assert pair is not None  # `check_exportable`
        found[f"{stack}_sparse_step"], found[f"num_sparse_{stack}_layers"] = pair
    return found


def _step_and_count(shape: StackShape) -> tuple[int, int] | None:
    """The step with which transformers has experts in these layers, None if no step does, and a
    number of such layers of which it makes this step, where there is one."""
    wanted, layers = tuple(shape.sparse_layers), shape.num_layers
    # First what both say; a step alone is enough, since it is written out too.
    counts = [len(wanted), *range(1, layers + 2)]
    pairs = [(step_of(count, layers), count) for count in counts]
    pairs += [(step, len(wanted)) for step in range(layers + 1)]
    return next((pair for pair in pairs if sparse_at(pair[0], layers) == wanted), None)
