"""The Python face: open a run and ask it, or train one. The commands do their work through it."""

from switchx.api.by_name import configure
from switchx.api.forking import fork
from switchx.api.run import LayerRouting, Run
from switchx.api.training import metric_writers, train, train_run
from switchx.settings import Settings

__all__ = [
    "LayerRouting",
    "Run",
    "Settings",
    "configure",
    "fork",
    "metric_writers",
    "train",
    "train_run",
]
