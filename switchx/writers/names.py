"""The writers that METRIC_WRITERS can name."""

import importlib.util
from collections.abc import Sequence

from switchx.errors import UserError

# Each with the package that it needs beyond switchx's own, which is its extra's name too.
WRITERS = {"tensorboard": None, "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


def check_names(names: Sequence[str]) -> None:
    """Raises UserError, naming METRIC_WRITERS, for a name that is none or stands there twice."""
    setting = f"METRIC_WRITERS={tuple(names)!r}"
    for name in names:
        if name not in WRITERS:
            raise UserError(
                f"{setting} names {name!r}, which is none of {', '.join(WRITERS)} (metrics.jsonl "
                "is always written)."
            )
        if names.count(name) > 1:
            raise UserError(f"{setting} names {name!r} more than once.")


def check_installed(names: Sequence[str]) -> None:
    """Raises UserError, naming the extra, where a writer's package is missing. Imports none."""
    for name in names:
        package = WRITERS[name]
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(
                f"METRIC_WRITERS={tuple(names)!r} needs the package {package}, which is not "
                f"installed: pip install 'switchx[{name}]', or leave {name!r} out."
            )
