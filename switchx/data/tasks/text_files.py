"""Where the tasks of one's own text find their files; known and checked without TensorFlow."""

from typing import NamedTuple

from switchx import storage
from switchx.data.config import DataConfig
from switchx.data.files import TEXT, open_records
from switchx.data.tasks import names
from switchx.errors import UserError

LANGUAGE = "{language}"
_SPLITS = ("train", "validation")


class Given(NamedTuple):
    """What the user gave of a split's files: the setting's name and its glob, None where unset."""

    setting: str
    glob: str | None

    def of(self, language: str) -> "Given":
        """The same of one language; '' stands for a task without."""
        if not language or self.glob is None:
            return self
        return self._replace(glob=self.glob.replace(LANGUAGE, language))


def given(config: DataConfig, task: str) -> dict[str, Given]:
    """The files of each split that a task of text reads, as they are given for all languages."""
    if task in names.OWN_TEXT:
        globs = config.text_files or {}
        of_split = {split: Given(f"TEXT_FILES[{split!r}]", globs.get(split)) for split in _SPLITS}
    else:
        of_split = {
            "train": Given("C4_JSON_TRAIN", config.json_train_glob),
            "validation": Given("C4_JSON_VALIDATION", config.json_validation_glob),
        }
    return {
        split: of._replace(glob=storage.expanded(of.glob) if of.glob else None)
        for split, of in of_split.items()
    }


def check(config: DataConfig, task: str, split: str) -> Given:
    """What is given of the files of a split, if there can be such files.

    Raises:
      UserError: there is no such split, no glob, or none that tells languages apart.
    """
    language = names.TEXT_TASKS[task]
    of_split = given(config, task)
    if split not in of_split:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={task!r} has the splits {', '.join(map(repr, of_split))} and "
            f"lacks {split!r}: name one that it has."
        )
    found = of_split[split]
    if not found.glob and task in names.OWN_TEXT:
        raise UserError(
            f"TEXT_FILES={None if config.text_files is None else dict(config.text_files)!r} names "
            f"no files for {split!r}: give their glob, as in {{'train': '/data/train/*', "
            "'validation': '/data/validation.txt'}."
        )
    if not found.glob:
        raise UserError(
            f"{found.setting} is not set: give the shards of the {split} split, as in "
            f"'/data/c4/en/c4-{split}.*-of-*.json.gz'."
        )
    if language and LANGUAGE not in found.glob:
        raise UserError(
            f"{found.setting}={found.glob!r} names no '{LANGUAGE}': put that where the files' "
            "names have the language, as in '/data/c4/multilingual/c4-{language}.*.gz'."
        )
    return found.of(language)


def described(config: DataConfig) -> list[str]:
    """A line for each task of text: its training files, what the first is, what a document is.

    Raises:
      UserError: there is no file, or the first cannot be read.
    """
    lines = []
    for name in (name for name in config.names if name in names.TEXT_TASKS):
        found = check(config, name, "train")
        paths = list(check_there(found))
        first = open_records(paths[0], found.setting)
        what = first.format.name + (f" in {first.compression}" if first.compression else "")
        document = "each line that is not empty"
        if first.format is not TEXT:
            document = f"the field {config.text_field!r} of each {first.format.unit}"
        count = "1 file" if len(paths) == 1 else f"{len(paths):,} files, the first"
        lines.append(f"{found.setting}={found.glob!r}: {count} {what}; a document is {document}")
    return lines


def check_there(found: Given) -> dict[str, int]:
    """The files that a glob matches and their bytes; UserError where there is none."""
    setting, pattern = found.setting, str(found.glob)
    files = storage.list_files(pattern, setting)
    if not files:
        raise UserError(f"{storage.why_none(pattern, setting)}.")
    return files
