"""How two processes find out that they belong to one job: both know its secret.

Each challenges the other with a random word, and proves by an HMAC (RFC 2104) of both words that
it knows the secret, which itself is never sent. Until then nothing that the other says is used.
"""

import hmac
import secrets
from collections.abc import Callable
from typing import Any

from switchx.errors import UserError
from switchx.hosts.connection import Connection

VARIABLE = "SWITCHX_JOB_SECRET"  # in the environment; scripts/launch_*.sh set it
_LEAST = 16  # characters: it must not be guessed from what was proved with it
_MOST_BYTES = 1024  # of a message from one that has proved nothing yet

# Gives the secret, or None while it is not known yet. Asked again before each try, for it may be
# of an earlier job.
Secret = Callable[[], str | None]


def new_secret() -> str:
    """A random one."""
    return secrets.token_hex(16)


def check_secret(given: str) -> str:
    """Returns it, or raises UserError where it is too short; says nothing of what it is."""
    if len(given) < _LEAST:
        raise UserError(
            f"{VARIABLE} has {len(given)} characters: set the same {_LEAST} or more, such as those "
            "of `openssl rand -hex 16`, on every host."
        )
    return given


def admit(connection: Connection, secret: str, timeout: float) -> bool:
    """The side of process 0: whether the other knows the secret. It then learns that we do.

    Raises:
      TimeoutError, ValueError: the other says nothing, or something else.
    """
    ours = new_secret()
    connection.send({"challenge": ours})
    theirs, proof = _words(connection.receive(timeout, _MOST_BYTES), "challenge", "proof")
    if not hmac.compare_digest(proof, _proof(secret, "join", ours, theirs)):
        return False
    connection.send({"proof": _proof(secret, "admit", ours, theirs)})
    return True


def join(connection: Connection, secret: str, timeout: float) -> bool:
    """The other side: whether process 0 and this process know the same secret.

    Raises:
      TimeoutError, ValueError: who listens there says nothing, or something else.
    """
    (theirs,) = _words(connection.receive(timeout, _MOST_BYTES), "challenge")
    ours = new_secret()
    connection.send({"challenge": ours, "proof": _proof(secret, "join", theirs, ours)})
    (proof,) = _words(connection.receive(timeout, _MOST_BYTES), "proof")
    return hmac.compare_digest(proof, _proof(secret, "admit", theirs, ours))


def _words(message: dict[str, Any] | None, *names: str) -> list[str]:
    """Texts of a message; "" where the other end is gone."""
    if message is None:
        return [""] * len(names)
    words = [message.get(name) for name in names]
    known = [word for word in words if isinstance(word, str) and word.isascii()]
    if len(known) < len(names):
        raise ValueError("not a challenge or a proof")
    return known


def _proof(secret: str, role: str, first: str, other: str) -> str:
    """Of process 0's word and the other's; the role keeps a proof from being sent back."""
    text = f"{role} {first} {other}"
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()
