"""Why a checkpoint could not be saved, in the words of the machine that refused it."""

import errno
import os
import resource

import numpy as np
import pytest
import tensorstore as ts

from switchx.training.checkpoints.failures import why


def test_a_file_that_may_not_grow(tmp_path):
    """TensorStore names all that it was writing first, and the reason at the end."""
    database = {"driver": "ocdbt", "base": f"file://{tmp_path}/{'a_long_name' * 9}/"}
    form = {"compressor": None, "shape": [1000], "dtype": "<f4"}
    array = ts.open(
        {"driver": "zarr", "kvstore": database, "path": "x", "metadata": form, "create": True}
    ).result()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ValueError, match="OCDBT") as raised:
            array.write(np.random.default_rng(0).random(1000, np.float32)).result()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert why(raised.value) == os.strerror(errno.EFBIG)
