"""Says which packages the parts need and this Python lacks, and how to carry them.

Ends with status 1 if the first part cannot run. `--names` prints their names alone.
"""

import importlib.util
import sys

# Module to package, by what needs it. flax and orbax bring more, such as tensorstore and msgpack.
PLATFORM = {
    "jax": "jax[cuda12]",
    "flax": "flax",
    "optax": "optax",
    "orbax.checkpoint": "orbax-checkpoint",
}
CARRIED = {
    "every part": {"fsspec": "fsspec", "matplotlib": "matplotlib"},
    "checks": {
        "pytest": "pytest",
        "pluggy": "pluggy",
        "iniconfig": "iniconfig",
        "hypothesis": "hypothesis",
        "sortedcontainers": "sortedcontainers",
        "tensorboardX": "tensorboardX",
    },
    "sweep": {
        "gin": "gin-config",
        "grain": "grain",
        "array_record": "array-record",
        "cloudpickle": "cloudpickle",
        "portpicker": "portpicker",
        "sentencepiece": "sentencepiece",
        "tensorboardX": "tensorboardX",
    },
}


def main() -> None:
    platform = missing(PLATFORM)
    lacking = {part: missing(modules) for part, modules in CARRIED.items()}
    if "--names" in sys.argv:
        print(" ".join(sorted({name for names in lacking.values() for name in names})))
        return
    print(f"Python {sys.version.split()[0]}")
    lacking["every part"] = platform + lacking["every part"]
    for part, packages in lacking.items():
        if packages:
            print(f"missing for {part}: {' '.join(packages)}")
    if any(lacking.values()):
        print(
            "To carry what is no accelerator's: `scripts/on_gpu.sh pack gpu_set` where there is a "
            "network puts wheels into gpu_set/wheels; copy gpu_set here and give --set=gpu_set."
        )
    sys.exit(1 if platform else 0)


def missing(modules: dict[str, str]) -> list[str]:
    return [package for module, package in modules.items() if not is_there(module)]


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it
        return False


if __name__ == "__main__":
    main()
