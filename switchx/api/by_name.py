"""Settings by name, from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from switchx.api.given import as_python, listed_strs, path_str
from switchx.errors import UserError
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
    files = listed_strs("gin_files", gin_files)
    directory = None if model_dir is None else path_str("model_dir", model_dir)
    return load(Request((*files,), bindings(settings, directory), model_dir=directory))


def bindings(settings: Mapping[str, Any], model_dir: str | None) -> tuple[Binding, ...]:
    """Settings as a request has them; UserError for a second name of the run's directory."""
    given = {name: as_python(value) for name, value in settings.items()}
    if model_dir is not None and "MODEL_DIR" in given:
        raise UserError(
            f"MODEL_DIR={given['MODEL_DIR']!r} and model_dir={model_dir!r} name the run's "
            "directory twice: leave one out."
        )
    return tuple(Binding(name, value, f"{name}={value!r}") for name, value in given.items())
