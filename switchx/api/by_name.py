"""Settings by name, from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx.api.given import as_python, listed_paths
from switchx.settings import Binding, Request, Settings, load


def configure(
    gin_files: Sequence[str | Path] = (), model_dir: str | Path | None = None, **settings: Any
) -> Settings:
    """The settings of a new run, as `switchx train` would read them.

    Args:
      gin_files: as of --gin_file; without any, the quickstart's.
      model_dir: the run's directory; by default one under runs/.
      settings: macros by name, as BATCH_SIZE=8; parameters as **{"ModelConfig.d_model": 64}.

    Raises:
      UserError: for the first mistake in any of it.
    """
    directory = None if model_dir is None else str(model_dir)
    return load(
        Request((*listed_paths("gin_files", gin_files),), bindings(settings), model_dir=directory)
    )


def bindings(settings: Mapping[str, Any]) -> tuple[Binding, ...]:
    """Settings as a request has them."""
    given = {name: as_python(value) for name, value in settings.items()}
    return tuple(Binding(name, value, f"{name}={value!r}") for name, value in given.items())
