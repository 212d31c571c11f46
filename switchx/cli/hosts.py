"""From flags to the job that this process is a part of."""

import argparse
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.settings import Settings

if TYPE_CHECKING:
    from switchx.hosts.job import Job

_SECRET_FILE = ".job-secret"


@contextlib.contextmanager
def joined(args: argparse.Namespace, settings: Settings, preemption: bool = False) -> Iterator[str]:
    """Within, JAX sees the devices of all hosts that run this command; see `switchx.hosts`.

    Raises:
      UserError: hosts differ in configuration or code, or a flag is wrong.
      RunError: a host did not start in time.
    """
    from switchx import hosts
    from switchx.hosts.job import find_job

    if args.start_timeout < 1:
        raise UserError(f"--start_timeout={args.start_timeout} must be at least 1 second.")
    job = find_job(
        args.coordinator_address, args.num_processes, args.process_id, args.start_timeout
    )
    facts = {"configuration": settings.resolved, "installation": _installation()}
    with contextlib.ExitStack() as meeting:
        secret = meeting.enter_context(_secret(job, settings.model_dir))
        with hosts.joined(job, facts, args.start_timeout, secret, preemption) as token:
            meeting.close()
            yield token


@contextlib.contextmanager
def _secret(job: "Job | None", model_dir: str) -> Iterator[Callable[[], str | None]]:
    """What the job's processes know and no one else: see `switchx.hosts.secret`.

    The launcher's, or one that process 0 leaves, while the hosts meet, in the run directory: only
    who may read that can be of the job. In a bucket that is who may read the bucket's objects.
    """
    from switchx.hosts.secret import VARIABLE, check_secret, new_secret

    if job is None or VARIABLE in os.environ:
        given = os.environ.get(VARIABLE)
        yield lambda: None if given is None else check_secret(given)
        return
    file = storage.writable_path(model_dir, "MODEL_DIR") / _SECRET_FILE
    if job.index > 0:
        yield lambda: _read(file)
        return
    made = new_secret()
    try:
        with storage.whole_file(file) as part:
            _write_private(part, made)
    except RunError as error:
        raise UserError(
            f"MODEL_DIR={model_dir!r} cannot hold the secret of a job of several hosts "
            f"({error}): set {VARIABLE} to the same value on every host."
        ) from None
    try:
        yield lambda: made
    finally:
        storage.remove(file)


def _read(file: Path) -> str | None:
    try:
        content = storage.read_if_there(file, "MODEL_DIR")
    except UserError:  # it is not for us
        return None
    return None if content is None else content.decode()


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _installation() -> str:
    """A line on each thing that must be the same for the hosts' programs to be the same."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")]
    return "\n".join(
        [f"switchx {_source_hash()}", f"Python {platform.python_version()}", *versions]
    )


@functools.cache
def _source_hash() -> str:
    """Changes with any line of this package's code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
