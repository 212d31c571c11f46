"""Which job this process is a part of: from flags, or from what started it."""

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from switchx.checks import at_least
from switchx.errors import UserError, first_line

_FLAGS = {
    "address": "--coordinator_address",
    "count": "--num_processes",
    "index": "--process_id",
}
# Where launchers, by JAX's names of them, say how many processes there are and which this one is.
_VARIABLES = {
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
    "ompi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "gketpu": ("TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID", "MEGASCALE_NUM_SLICES"),
    "": ("JOB_COMPLETION_INDEX",),  # Kubernetes
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One of several processes that compute together.

    Attributes:
      address: "HOST:PORT" at which process 0 awaits the others.
      count: processes in all.
      index: this one's number, from 0.
      local_devices: numbers of the machine's GPUs that are this process's; None: all.
      found_in: variables of the environment that say so, as "NAME=value"; "" where flags do.
    """

    address: str
    count: int
    index: int
    local_devices: tuple[int, ...] | None = None
    found_in: str = ""

    @property
    def host(self) -> str:
        """The machine of process 0."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def reason(self) -> str:
        """Where it is known from, as the beginning of a sentence about what is missing."""
        if not self.found_in:
            return f"--num_processes={self.count}"
        return f"{self.found_in} in the environment make {self.count} processes"

    @property
    def remedy(self) -> str:
        """What else to do than to start all processes."""
        if not self.found_in:
            return "correct --num_processes or --coordinator_address"
        return "run this one alone with --num_processes=1"


def find_job(
    address: str | None, count: int | None, index: int | None, timeout: float
) -> Job | None:
    """The job by flags, and where they say nothing by the environment; None if it is alone.

    TPU pods, SLURM (srun) and Open MPI say it themselves.

    Args:
      timeout: seconds to wait for the coordinator's name to be known.

    Raises:
      UserError: a part is missing or impossible.
    """
    if count is not None:
        at_least("--num_processes", count, 1)
    if count == 1 and index not in (None, 0):
        raise UserError(f"--process_id={index} must be 0, where --num_processes=1 runs alone.")
    given = {"address": address, "count": count, "index": index}
    given = {name: value for name, value in given.items() if value is not None}
    if given == {"count": 1}:
        return None
    said = _of_environment(timeout) if len(given) < len(_FLAGS) else {}
    values: dict[str, Any] = {**said, **given}
    if not values or ("address" not in given and values.get("count") == 1):
        return None
    for name, flag in _FLAGS.items():
        if name not in values:
            raise UserError(_missing(flag, given, said))
    if "count" in given:
        values["found_in"] = ""
    job = Job(**values, local_devices=_local_devices(os.environ))
    _check(job)
    return None if job.count == 1 else job


def _check(job: Job) -> None:
    if not re.fullmatch(r"(\[[^\]]+\]|[^:\s]+):\d{1,5}", job.address) or not 0 < job.port < 65536:
        raise UserError(f"--coordinator_address={job.address} must be HOST:PORT, as in node0:8476.")
    at_least("--num_processes", job.count, 1)
    if not 0 <= job.index < job.count:
        raise UserError(
            f"--process_id={job.index} must be from 0 to {job.count - 1}, below "
            f"--num_processes={job.count}."
        )


def _missing(flag: str, given: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    all_flags = ", ".join(_FLAGS.values())
    if said and not given:
        return (
            f"{said['found_in']} in the environment make {said['count']} processes, and "
            f"{flag} is missing: name it, or run this one alone with --num_processes=1."
        )
    return (
        f"{flag} is missing: give each of several processes {all_flags}, where TPU, SLURM or Open "
        "MPI do not say them."
    )


def _of_environment(timeout: float) -> dict[str, Any]:
    """A job's attributes as the launcher says them, without what it does not say."""
    from jax._src import clusters  # its detection, which jax.distributed.initialize uses too

    for env in clusters.ClusterEnv._cluster_types:
        if not env.opt_in_only_method and _is_present(env):
            with _read_as(_found_in(env.name)):
                return _said_by(env, timeout)
    # Open MPI 5 no longer says where process 0 is.
    size, rank = _VARIABLES["ompi"]
    if size not in os.environ or rank not in os.environ:
        return {}
    with _read_as(_found_in("ompi")):
        count, index = int(os.environ[size]), int(os.environ[rank])
    return {"count": count, "index": index, "found_in": _found_in("ompi")}


def _said_by(env: Any, timeout: float) -> dict[str, Any]:
    said: dict[str, Any] = {"count": env.get_process_count(), "index": env.get_process_id()}
    if said["count"] > 1:
        port = os.environ.get("JAX_COORDINATOR_PORT")
        said["address"] = env.get_coordinator_address(int(timeout), port)
    return said | {"found_in": _found_in(env.name)}


@contextlib.contextmanager
def _read_as(variables: str) -> Iterator[None]:
    """Within, variables that are no numbers or lack others beside them become one sentence."""
    try:
        yield
    except Exception as error:  # JAX's readers raise what they like
        raise UserError(
            f"{variables} in the environment make this one of several processes, and cannot be "
            f"read ({type(error).__name__}: {first_line(error)}): name {', '.join(_FLAGS.values())}"
            ", or run this one alone with --num_processes=1."
        ) from error


def _found_in(launcher: str) -> str:
    names = [name for name in _VARIABLES.get(launcher, ()) if name in os.environ]
    found = [f"{name}={os.environ[name][:60]}" for name in names]
    return ", ".join(found) or "the TPU slice's metadata"  # of Cloud TPU VMs


def _is_present(env: Any) -> bool:
    with warnings.catch_warnings():
        # In any pod of Kubernetes, TPUs or not, JAX advises seven lines long to install a package.
        warnings.simplefilter("ignore")
        return env.is_env_present()


def _local_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """This process's GPU where several processes share a machine; else all that there are.

    JAX alone would give a SLURM task its local number's GPU even if it is the node's only task.
    """
    local, tasks = environment.get("SLURM_LOCALID"), environment.get("SLURM_STEP_TASKS_PER_NODE")
    if tasks is None:
        local = environment.get("OMPI_COMM_WORLD_LOCAL_RANK")
        tasks = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    number = _number(local)
    return None if number is None or _number(tasks) in (None, 1) else (number,)


def _number(text: str | None) -> int | None:
    """The number that a text begins with: SLURM writes 2(x4) for two tasks on each of 4 nodes."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else None
