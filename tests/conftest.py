"""Settings that must be in the environment before anything imports JAX."""

import os
from pathlib import Path

# Eight CPU devices, so that every mesh is tested on any machine, with or without accelerators.
DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()

# What one run of the suite compiled, the next one (and every worker and subprocess) reads.
_cache_root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache_root / "switchx" / "test-xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
