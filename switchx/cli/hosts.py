"""From flags to the job that this process is a part of."""

import argparse
import contextlib
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

from switchx.errors import UserError
from switchx.settings.loading import Settings


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
    with hosts.joined(job, facts, args.start_timeout, preemption) as token:
        yield token


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
