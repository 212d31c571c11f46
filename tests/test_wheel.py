"""The wheel: what is in it, what it requires, and that it works from an empty folder.

`make test-wheel` installs it with plain pip, which takes minutes and a network.
"""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import switchx

ROOT = Path(__file__).parents[1]
SOURCES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "switchx",
    "configs",
)
# What only who asked for an extra comes to.
EXTRAS = {"storage": {"gcsfs"}, "writers": {"wandb", "mlflow", "trackio"}}
# What another requirement brings for the sake of its own interface: Orbax's paths, protobuf,
# Matplotlib's images, JAX's programs.
COME_ALONG = {"etils", "google", "absl", "PIL", "jaxlib"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder with what a wheel of this checkout holds."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist"]
    subprocess.run([sys.executable, *build, "./source"], cwd=folder, check=True)
    (path,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(path).extractall(folder / "installed")
    return folder / "installed"


def metadata(wheel):
    (info,) = wheel.glob("switchx-*.dist-info")
    return importlib.metadata.PathDistribution(info)


def test_it_holds_the_package_and_its_configurations(wheel):
    def files(folder, pattern):
        return {p.relative_to(folder): p.read_bytes() for p in folder.glob(f"**/{pattern}")}

    assert files(wheel / "switchx", "*.py") == files(ROOT / "switchx", "*.py")
    assert files(wheel / "switchx/configs", "*.gin") == files(ROOT / "configs", "*.gin")
    assert {path.name for path in wheel.iterdir()} == {"switchx", metadata(wheel)._path.name}


def test_one_version_and_the_license(wheel):
    found = metadata(wheel)
    assert found.version == switchx.__version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in found.read_text("licenses/LICENSE")
    newest = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert switchx.__version__.partition(".dev")[0] == newest[1]


def test_it_requires_what_it_imports_and_nothing_that_brings_nightlies(wheel):
    required = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        for line in metadata(wheel).requires
        if "extra ==" not in line
    }
    assert not required & {"t5", "seqio-nightly", "tfds-nightly"}
    packages = importlib.metadata.packages_distributions()
    for path in (ROOT / "switchx").glob("**/*.py"):
        for module in imported(path) - set(sys.stdlib_module_names) - {"switchx", "t5"}:
            known = {name.lower().replace("_", "-") for name in packages.get(module, [])}
            its_extra = module in EXTRAS.get(path.parent.name, ())
            assert known & required or module in COME_ALONG or its_extra, f"{path}: {module}"


def imported(path):
    """The top names of all modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_it_works_in_an_empty_folder(wheel, tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "switchx.cli.main", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(wheel)},
            capture_output=True,
            text=True,
        )

    shown = run("info", "--gin_file=configs/models/t5_small.gin")
    assert "60,506,624" in shown.stdout, shown.stderr
    missing = run("info", "--gin_file=configs/models/t5_smal.gin")
    assert f"was not found in {tmp_path} or {wheel / 'switchx'}" in missing.stderr
    assert "near it are configs/models/t5_small.gin" in missing.stderr
