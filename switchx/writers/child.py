"""The process that a tracker's package runs in; `InProcess` is its other end."""

import base64
import importlib
import json
import os
import sys
from typing import Any, BinaryIO

from switchx.errors import first_line
from switchx.writers.writer import RunFacts, Writer


def main(name: str) -> None:
    """Makes the calls that come on standard input; says on standard output why it failed."""
    calls, reply = _own_streams()
    try:
        module = importlib.import_module(f"switchx.writers.{name}")
        _work(module.TRACKER(), calls)
    except Exception as error:
        reply.write(f"{type(error).__name__}: {first_line(error)}".encode())
        reply.flush()
        sys.exit(1)


def _work(writer: Writer, calls: BinaryIO) -> None:
    for line in calls:
        if not line.endswith(b"\n"):
            break  # the trainer was killed within it
        method, *args = json.loads(line)
        getattr(writer, method)(*_as_sent(method, args))
        if method == "close":
            return
    writer.close("failed")  # the trainer is gone


def _as_sent(method: str, args: list[Any]) -> list[Any]:
    if method == "begin":
        return [RunFacts(**args[0]), *args[1:]]
    if method == "picture":
        return [*args[:-1], base64.b64decode(args[-1])]
    return args


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes under numbers that no library knows and no process of one inherits."""
    calls, reply = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return os.fdopen(calls, "rb"), os.fdopen(reply, "wb")
