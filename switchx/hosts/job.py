"""Which job this process is a part of: from flags, or from what started it."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from switchx.errors import UserError

_FLAGS = {
    "address": "--coordinator_address",
    "count": "--num_processes",
    "index": "--process_id",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One of several processes that compute together.

    Attributes:
      address: "HOST:PORT" at which process 0 awaits the others.
      count: processes in all.
      index: this one's number, from 0.
      local_devices: numbers of the machine's GPUs that are this process's; None: all.
    """

    address: str
    count: int
    index: int
    local_devices: tuple[int, ...] | None = None

    @property
    def host(self) -> str:
        """The machine of process 0."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


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
    given = {"address": address, "count": count, "index": index}
    given = {name: value for name, value in given.items() if value is not None}
    said = _of_environment(timeout) if len(given) < len(_FLAGS) else {}
    values: dict[str, Any] = {**said, **given}
    if not values or ("address" not in given and values.get("count") == 1):
        return None
    for name, flag in _FLAGS.items():
        if name not in values:
            raise UserError(
                f"{flag} is missing: several processes need {', '.join(_FLAGS.values())} each, "
                "where TPU, SLURM or Open MPI do not say them."
            )
    job = Job(**values, local_devices=_local_devices(os.environ))
    _check(job)
    return None if job.count == 1 else job


def _check(job: Job) -> None:
    if not re.fullmatch(r"(\[[^\]]+\]|[^:\s]+):\d{1,5}", job.address) or not 0 < job.port < 65536:
        raise UserError(f"--coordinator_address={job.address} must be HOST:PORT, as in node0:8476.")
    if job.count < 1:
        raise UserError(f"--num_processes={job.count} must be at least 1.")
    if not 0 <= job.index < job.count:
        raise UserError(
            f"--process_id={job.index} must be from 0 to {job.count - 1}, below "
            f"--num_processes={job.count}."
        )


def _of_environment(timeout: float) -> dict[str, Any]:
    """Address, count and index as the launcher says them, without what it does not say."""
    from jax._src import clusters  # its detection, which jax.distributed.initialize uses too

    for env in clusters.ClusterEnv._cluster_types:
        if not env.opt_in_only_method and env.is_env_present():
            said: dict[str, Any] = {"count": env.get_process_count(), "index": env.get_process_id()}
            if said["count"] > 1:
                port = os.environ.get("JAX_COORDINATOR_PORT")
                said["address"] = env.get_coordinator_address(int(timeout), port)
            return said
    # Open MPI 5 no longer says where process 0 is.
    names = {"count": "OMPI_COMM_WORLD_SIZE", "index": "OMPI_COMM_WORLD_RANK"}
    return {key: int(os.environ[name]) for key, name in names.items() if name in os.environ}


def _local_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """This process's GPU where several processes share a machine; else all that there are.

    JAX alone would give a SLURM task its local number's GPU even if it is the node's only task.
    """
    local, tasks = environment.get("SLURM_LOCALID"), environment.get("SLURM_STEP_TASKS_PER_NODE")
    if tasks is None:
        local = environment.get("OMPI_COMM_WORLD_LOCAL_RANK")
        tasks = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    if local is None or _number(tasks) in (None, 1):
        return None
    return (int(local),)


def _number(text: str | None) -> int | None:
    """The number that a text begins with: SLURM writes 2(x4) for two tasks on each of 4 nodes."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else None
