"""Fixtures of the tests of training."""

import jax
import pytest


@pytest.fixture(scope="module")
def one_device():
    """JAX shows one device alone, on which everything starts fastest."""
    patch = pytest.MonkeyPatch()
    devices = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: devices)
    patch.setattr(jax, "device_count", lambda *_: 1)
    yield
    patch.undo()
