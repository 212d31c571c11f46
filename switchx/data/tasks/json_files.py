"""Where the JSON-lines tasks find their files; known and checked without TensorFlow."""

from switchx import storage
from switchx.data.config import DataConfig
from switchx.errors import UserError

SETTINGS = {"train": "C4_JSON_TRAIN", "validation": "C4_JSON_VALIDATION"}
LANGUAGE = "{language}"


def globs(config: DataConfig) -> dict[str, str]:
    """The glob of each split that has one."""
    given = {"train": config.json_train_glob, "validation": config.json_validation_glob}
    return {split: storage.expanded(glob) for split, glob in given.items() if glob}


def of_language(glob: str, language: str) -> str:
    """The glob of one language; '' stands for a task without."""
    return glob.replace(LANGUAGE, language) if language else glob


def check(glob: str | None, split: str, language: str) -> str:
    """The files' pattern, if there can be such files.

    Raises:
      UserError: there is no glob, or none that tells languages apart.
    """
    setting = SETTINGS.get(split, split)
    if not glob:
        raise UserError(
            f"{setting} is not set: give the JSON-lines shards of the {split} split, as in "
            f"'/data/c4/en/c4-{split}.*-of-*.json.gz'."
        )
    if language and LANGUAGE not in glob:
        raise UserError(
            f"{setting}={glob!r} names no '{LANGUAGE}': put that where the files' names have the "
            "language, as in '/data/c4/multilingual/c4-{language}.*.gz'."
        )
    return of_language(glob, language)


def check_there(pattern: str, split: str) -> dict[str, int]:
    """The files that a pattern matches and their bytes; UserError where there is none."""
    setting = SETTINGS.get(split, split)
    found = storage.list_files(pattern, setting)
    if not found and storage.names_in(pattern, setting):
        raise UserError(
            f"{setting}={pattern!r} is a folder: give a glob of its files, as in "
            f"'{pattern.rstrip('/')}/*.json*'."
        )
    if not found:
        raise UserError(f"{setting}={pattern!r} matches no file: give a glob that does.")
    return found
