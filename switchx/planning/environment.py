"""What must be in the environment before JAX is imported, for it to compile for other machines."""

import os

# JAX must look for no accelerator here: CUDA's plugin ends in an error where it finds none. libtpu
# must neither look for the TPU's metadata server nor lock the machine for itself.
_ALWAYS = {"JAX_PLATFORMS": "cpu"}
_UNLESS_SET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    # Without these two it complains of not knowing this machine's; the topology's own are used.
    "TPU_HOST_BOUNDS": "1,1,1",
    "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1",
}


def prepare() -> None:
    """Sets it. JAX must not have been imported yet."""
    os.environ |= _ALWAYS | {k: os.environ.get(k, v) for k, v in _UNLESS_SET.items()}
