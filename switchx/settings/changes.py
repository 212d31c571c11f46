"""What is set otherwise in a run that goes on than it was before."""

import os
from typing import Any

from switchx import storage
from switchx.errors import UserError
from switchx.settings.configurables import CONFIGURABLES
from switchx.settings.gin_files import Reader
from switchx.settings.gin_values import ONCE, GinConfig
from switchx.settings.loading import SAVED
from switchx.settings.settings import Settings


def changed_settings(settings: Settings) -> list[str]:
    """A line on each setting whose value differs from that in the run's saved configuration.

    Nothing in that file is executed. None where no run was started there.
    """
    saved = storage.as_path(settings.model_dir, "MODEL_DIR") / SAVED
    if not storage.is_file(saved, "MODEL_DIR"):
        return []
    try:
        file = str(saved) if storage.is_remote(saved) else os.path.abspath(saved)
        before = GinConfig.of(Reader().read_file(file, SAVED)).settings()
    except UserError as error:
        return [f"what changed since the last start is not known: {error}"]
    now = settings.gin.settings()
    return [
        f"{name} was {_shown(name, before)} and is now {_shown(name, now)}"
        f"{_effect(name, before, now)}"
        for name in sorted((before.keys() | now.keys()) - set(ONCE))
        if _value(name, before) != _value(name, now)
    ]


def _value(name: str, values: dict[str, Any]) -> Any:
    """Of a setting; the default of a parameter that is not set."""
    cls, _, field = name.partition(".")
    return values.get(name, getattr(CONFIGURABLES.get(cls), field, None) if field else None)


def _shown(name: str, values: dict[str, Any]) -> str:
    value = _value(name, values)
    return "not set" if value is None and name not in values else repr(value)


def _effect(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """What a change brings with it that its name does not say."""
    schedule = now.get("SCHEDULE")
    if name == "BATCH_SIZE" and isinstance(now[name], int) and isinstance(before.get(name), int):
        return (
            " (the data goes on at its next example; TRAIN_STEPS, WARMUP_STEPS and the schedule "
            f"count steps as before, each now of {now[name] / before[name]:.4g} times the examples)"
        )
    if name == "TRAIN_STEPS" and schedule in ("linear", "cosine", "wsd"):
        return f" (SCHEDULE={schedule!r} follows it, so the learning rate changes too)"
    return ""
