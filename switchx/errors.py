"""The exceptions a user is meant to read; the command line prints them as one line."""

import re

_NODE_NAMES = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:[^\]]*\]( name:)?")  # TensorFlow's own


class UserError(Exception):
    """A mistake in what the user asked for: a setting, a file, a machine. Exit status 2.

    The message is one sentence that names the setting, its value and what would be accepted.
    """


class RunError(Exception):
    """A run that was asked for rightly and could not go on, such as a loss that is not finite.

    The message says where it stopped and what it leaves. Exit status 1.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a sentence of ours; its type where it has none."""
    lines = _NODE_NAMES.sub("", str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
