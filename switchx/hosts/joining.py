"""The hosts of a job: joining them, naming the first, waiting for each other with a limit."""

import atexit
import collections
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from switchx.errors import RunError, UserError
from switchx.hosts.job import Job
from switchx.hosts.meeting import Meeting, meet
from switchx.hosts.secret import Secret
from switchx.hosts.watch import Watch
from switchx.terminal import remark

BARRIER_SECONDS = 600.0
COMPILE_SECONDS = 3600.0  # in which the slowest host must have compiled what the fastest has
_VERDICT_SECONDS = 5.0
_ANNOUNCED_MILLISECONDS = 60_000
_passed: collections.Counter[str] = collections.Counter()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str, seconds: float = BARRIER_SECONDS) -> None:
    """Waits until every host is here.

    Raises:
      RunError: one is not within `seconds`.
    """
    client = _client()
    if client is None:
        return
    began = time.monotonic()
    try:
        _passed[name] += 1  # a name may come again, but JAX wants each barrier's to be new
        client.wait_at_barrier(f"switchx: {name} {_passed[name]}", int(seconds * 1000))
    except RuntimeError as error:
        waited = time.monotonic() - began
        raise RunError(
            f"not all hosts were {name} within {waited:.0f} s: {str(error).splitlines()[0]}"
        ) from None


def compiled_everywhere(what: str) -> None:
    """Waits for the hosts that still compile: collectives wait for each other for seconds only.

    Raises:
      RunError: one has not compiled within COMPILE_SECONDS of this one.
    """
    barrier(f"ready to {what}", COMPILE_SECONDS)


def all_of(here: bool) -> bool:
    """Whether it is so on every host. All must ask."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def announced(text: str) -> str:
    """What the first host says; the others wait for it, however long it takes. All must ask."""
    client = _client()
    if client is None or jax.process_count() == 1:
        return text
    _passed["announced"] += 1
    key = f"switchx: announced {_passed['announced']}"
    if is_first():
        client.key_value_set(key, text)
        return text
    while True:
        try:
            return str(client.blocking_key_value_get(key, _ANNOUNCED_MILLISECONDS))
        except RuntimeError as error:  # where the first host is gone the watch ends this one
            if "DEADLINE_EXCEEDED" not in str(error):
                raise RunError(f"the first host could not be heard: {error}") from None


def _client():  # type: ignore[no-untyped-def]
    """JAX's connection to the job's other hosts; None where there are none."""
    from jax._src import distributed  # barriers with a name and a limit are not public yet

    return distributed.global_state.client


@contextlib.contextmanager
def joined(
    job: Job | None,
    facts: Mapping[str, str],
    timeout: float,
    secret: Secret,
    preemption: bool = False,
) -> Iterator[str]:
    """Within, JAX sees the devices of all hosts. Yields a word that all hosts have in common.

    Where another host is lost or stops, this process says so in one line and ends. Where this
    one ends by an exception, the others learn why and end too.

    Args:
      facts: what all must have in common (see `meet`).
      timeout: seconds in which all hosts must have started.
      secret: gives what only this job's processes know (see `meet`).
      preemption: whether SIGTERM is left to `jax.experimental.multihost_utils`
        (`reached_preemption_sync_point`), and so does not end the process.

    Raises:
      UserError, RunError: as `meet` does.
    """
    if job is None:
        yield ""
        return
    meeting = meet(job, facts, timeout, secret)
    watch = Watch(meeting, _end)
    try:
        _initialize(job, meeting, timeout, preemption)
        yield meeting.token
        barrier("done")
    except BaseException as error:
        if not isinstance(error, UserError | RunError | KeyboardInterrupt):
            time.sleep(_VERDICT_SECONDS)  # a lost host breaks collectives: its loss is the reason
        status = 2 if isinstance(error, UserError) else 1
        watch.fail(_sentence(error), status)
        # JAX would wait for the others at exit, who are ending without it.
        atexit.register(_leave, status)
        raise
    watch.finish()


def _initialize(job: Job, meeting: Meeting, timeout: float, preemption: bool) -> None:
    jax.config.update("jax_enable_preemption_service", preemption)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        meeting.address,
        job.count,
        job.index,
        coordinator_bind_address=meeting.bind_address,
        local_device_ids=job.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout),
    )


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return text if isinstance(error, UserError | RunError) else f"{type(error).__name__}: {text}"


def _end(text: str, status: int) -> None:
    advice = "" if status == 2 else " Start the same command on all hosts to go on."
    remark(f"{text.rstrip('.')}.{advice}")
    _leave(status)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
