"""Which code this process runs."""

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path


def installation() -> str:
    """A line on each thing that must be the same for two processes' programs to be the same."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "optax")]
    return "\n".join([f"switchx {code()}", f"Python {platform.python_version()}", *versions])


@functools.cache
def code() -> str:
    """Changes with any line of this package's code."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
