"""From flags to the job that this process is a part of."""

import argparse
import contextlib
import os
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
      UserError, RunError: as `joined_over`.
    """
    with joined_over(args, settings.resolved, settings.model_dir, "MODEL_DIR", preemption) as token:
        yield token


@contextlib.contextmanager
def joined_over(
    args: argparse.Namespace, configuration: str, folder: str, setting: str, preemption: bool
) -> Iterator[str]:
    """The same for what is no single run.

    Args:
      configuration: what the hosts must have in common.
      folder, setting: a place that all can reach, and what named it.

    Raises:
      UserError: hosts differ in configuration or code, or a flag is wrong.
      RunError: a host did not start in time.
    """
    from switchx import hosts
    from switchx.hosts.installation import installation
    from switchx.hosts.job import find_job

    if args.start_timeout < 1:
        raise UserError(f"--start_timeout={args.start_timeout} must be at least 1 second.")
    job = find_job(
        args.coordinator_address, args.num_processes, args.process_id, args.start_timeout
    )
    facts = {"configuration": configuration, "installation": installation()}
    with contextlib.ExitStack() as meeting:
        secret = meeting.enter_context(_secret(job, folder, setting))
        with hosts.joined(job, facts, args.start_timeout, secret, preemption) as token:
            meeting.close()
            yield token


@contextlib.contextmanager
def _secret(job: "Job | None", folder: str, setting: str) -> Iterator[Callable[[], str | None]]:
    """What the job's processes know and no one else: see `switchx.hosts.secret`.

    The launcher's, or one that process 0 leaves, while the hosts meet, in the run directory: only
    who may read that can be of the job. In a bucket that is who may read the bucket's objects.
    """
    from switchx.hosts.secret import VARIABLE, check_secret, new_secret

    if job is None or VARIABLE in os.environ:
        given = os.environ.get(VARIABLE)
        yield lambda: None if given is None else check_secret(given)
        return
    file = storage.writable_path(folder, setting) / _SECRET_FILE
    if job.index > 0:
        yield lambda: _read(file, setting)
        return
    made = new_secret()
    try:
        with storage.whole_file(file) as part:
            _write_private(part, made)
    except RunError as error:
        raise UserError(
            f"{setting}={folder!r} cannot hold the secret of a job of several hosts "
            f"({error}): set {VARIABLE} to the same value on every host."
        ) from None
    try:
        yield lambda: made
    finally:
        storage.remove(file)


def _read(file: Path, setting: str) -> str | None:
    try:
        content = storage.read_if_there(file, setting)
    except UserError:  # it is not for us
        return None
    return None if content is None else content.decode()


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
