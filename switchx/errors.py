"""The one exception a user is meant to read."""


class UserError(Exception):
    """A mistake in what the user asked for: a setting, a file, a machine.

    The message is one sentence that names the setting, its value and what would be accepted.
    The command line prints it and exits with status 2; nothing else catches it.
    """
