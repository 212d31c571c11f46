"""Whether a run and its teacher have room in a device, before anything of either is allocated."""

import os

import jax

from switchx.errors import UserError
from switchx.training.batches import abstract_batch
from switchx.training.placing import bytes_per_device
from switchx.training.state import Setup


def check_room(setup: Setup) -> None:
    """Raises UserError where a device's memory is less than a run's state, batch or teacher need.

    Gradients, activations and the program come on top: `switchx plan` counts those.
    """
    teacher, room = setup.run.teacher, device_bytes()
    if room is None:
        return
    state = bytes_per_device(setup.abstract)
    if state > room:
        raise UserError(
            f"The parameters and the optimizer's state need {_size(state)} of each device, "
            f"and one has {_size(room)}: choose a smaller model, or share it out over more "
            "devices by MESH_EXPERT, MESH_MODEL or FULLY_SHARDED (`switchx plan` finds how)."
        )
    shapes = {"BATCH_SIZE": setup.run.batch, "EVAL_BATCH_SIZE": setup.run.eval_batch}
    for name, shape in shapes.items():
        batch = bytes_per_device(abstract_batch(shape, setup))
        if batch > room:
            raise UserError(
                f"{name}={shape.batch_size} needs {_size(batch)} of each device for the tokens "
                f"alone, and one has {_size(room)}: lower it."
            )
    constants = bytes_per_device(setup.objective.abstract_constants(setup.mesh))
    if teacher and state + constants > room:
        halves = (
            "" if teacher.config.dtype == "bfloat16" else "TEACHER_DTYPE='bfloat16' halves it; "
        )
        raise UserError(
            f"TEACHER={teacher.config.teacher!r} needs {_size(constants)} of each device "
            f"beside {_size(state)} of this run's state, and one has {_size(room)}: "
            f"{halves}MESH_EXPERT, MESH_MODEL and FULLY_SHARDED share it out over more devices."
        )


def _size(count: int) -> str:
    gigabytes = count / 1e9
    return f"{gigabytes:.3g} GB" if gigabytes < 1000 else f"{gigabytes:,.0f} GB"


def device_bytes() -> int | None:
    """Memory of one device; of CPU devices each one's part of this machine's. None if unknown."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit or device.platform != "cpu":
        return limit
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole // jax.local_device_count()
