"""Which process holds something, and whether it is known to have ended."""

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchx.errors import UserError


class InUseError(UserError):
    """Another process holds what was asked for."""


def this_process() -> dict[str, str]:
    """What others need to know of this process: `is_gone` reads it."""
    return {"process": f"{os.getpid()} on {socket.gethostname()}", "place": _place()}


def is_gone(record: Mapping[str, Any]) -> bool:
    """Whether it was a process of this machine that has ended: nobody need wait for it."""
    number = str(record.get("process")).split(" ")[0]
    if not record.get("place") or record["place"] != _place() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def record_of(content: bytes | None) -> dict[str, Any]:
    """The JSON object that a holder wrote; {} where that is none."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content or b"")
        return found if isinstance(found, dict) else {}
    return {}


def _place() -> str:
    """Where a process number means something: this start of this machine, this container."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    return ""
