"""The exceptions a user is meant to read; the command line prints them as one line."""


class UserError(Exception):
    """A mistake in what the user asked for: a setting, a file, a machine. Exit status 2.

    The message is one sentence that names the setting, its value and what would be accepted.
    """


class RunError(Exception):
    """A run that was asked for rightly and could not go on, such as a loss that is not finite.

    The message says where it stopped and what it leaves. Exit status 1.
    """
