"""Whether a failure is of an object store that does not answer, or of what a checkpoint holds."""

import os
import re

from switchx import storage
from switchx.errors import first_line

_REFUSED = re.compile(
    r"ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED"
)
_SYSTEM = re.compile(r"os_error_code='(\d+)'")  # behind the names of all that was being written


def store_failure(error: BaseException) -> OSError | None:
    """What a store said to TensorStore when it refused, in short; None of any other error.

    No checkpoint is damaged for that: it may be read as soon as the store answers.
    """
    text = str(error)
    if not _REFUSED.match(text):
        return None
    code = re.search(r"http_response_code='(\d+)'", text)
    said = text.split(" [", 1)[0]
    said = f"{said.split(':', 1)[0]} {said.rsplit('Error ', 1)[-1]}"  # the last of a chain
    return OSError(f"{said} ({code[1]})" if code else said)


def why(error: BaseException) -> str:
    """Why something could not be saved, in a few words."""
    of_this_machine = _SYSTEM.search(str(error))
    if of_this_machine:
        return os.strerror(int(of_this_machine[1]))
    refused = store_failure(error)
    return storage.explain(refused) if refused else first_line(error)
