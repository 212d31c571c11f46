"""Whether a teacher has room beside what it teaches, before anything of either is allocated."""

import os

import jax

from switchx.errors import UserError
from switchx.training.placing import bytes_per_device
from switchx.training.state import Setup


def check_room(setup: Setup) -> None:
    """Raises UserError where a device's memory is less than a run's state and teacher need.

    Gradients, activations and the program come on top: `switchx plan` counts those.
    """
    teacher, room = setup.run.teacher, device_bytes()
    constants = bytes_per_device(setup.objective.abstract_constants(setup.mesh))
    if teacher is None or not constants or room is None:
        return
    state = bytes_per_device(setup.abstract)
    if state + constants > room:
        halves = (
            "" if teacher.config.dtype == "bfloat16" else "TEACHER_DTYPE='bfloat16' halves it; "
        )
        raise UserError(
            f"TEACHER={teacher.config.teacher!r} needs {constants / 1e9:.3g} GB of each device "
            f"beside {state / 1e9:.3g} GB of this run's state, and one has {room / 1e9:.3g} GB: "
            f"{halves}MESH_EXPERT, MESH_MODEL and FULLY_SHARDED share it out over more devices."
        )


def device_bytes() -> int | None:
    """Memory of one device; of CPU devices each one's part of this machine's. None if unknown."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit or device.platform != "cpu":
        return limit
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole // jax.local_device_count()
