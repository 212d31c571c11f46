"""Makes the folder that travels to a machine without a network: a prepared set, and wheels.

    python -m gpu.pack gpu_set [--no_wheels]

Here there is a network, and switchx is installed with all it needs. The set is the embedded
corpus, cut once; to take another, prepare it with its vocabulary as below.
"""

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from gpu.missing import CARRIED
from gpu.sweep import LENGTHS, settings

# The oldest C library that the wheels may be built for, by the names that pip compares.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="that machine's Python")
    parser.add_argument("--no_wheels", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    prepare(args.folder)
    if not args.no_wheels:
        download(args.folder / "wheels", args.python)
    print(f"{args.folder}: {sum(p.stat().st_size for p in args.folder.rglob('*')) / 1e6:.1f} MB")


def prepare(folder: Path) -> None:
    """Writes the vocabulary and the prepared set, if they are not there."""
    from switchx.data.config import DataConfig
    from switchx.data.tasks import corpus

    cache = DataConfig("", LENGTHS, 1).cache_path
    shutil.copy(corpus.ensure(cache).vocabulary_path, folder / "vocabulary.model")
    command = [sys.executable, "-m", "switchx.cli.main", "data", "prepare", *settings(folder)]
    subprocess.run(command, check=True)


def download(folder: Path, python: str) -> None:
    """Wheels of what `missing` may name, at the versions that are installed here."""
    packages = {name for modules in CARRIED.values() for name in modules.values()}
    pins = [f"{package}=={version(package)}" for package in sorted(packages)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    subprocess.run([*command, *(f"--platform={p}" for p in PLATFORMS), *pins], check=True)


if __name__ == "__main__":
    main()
