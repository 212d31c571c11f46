"""The house of CONTRIBUTING.md: who may import whom, and who may touch what."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "switchx"
# Each folder's floor: imports go to lower ones only, and to those named where they are fewer.
FLOORS = {
    "cli": 9,
    "sweeps": 8,
    "reports": 8,
    "settings": 7,
    "planning": 6,
    "interop": 6,
    "evaluation": 5,
    "training": 4,
    "inference": 4,
    "data": 3,
    "model": 3,
    "hosts": 2,
    "sharding": 2,
    "writers": 2,
    "storage": 1,
}
ONLY = {
    "data": {"storage"},
    "model": {"sharding"},
    "hosts": {"storage"},
    "sharding": set(),
    "writers": {"storage"},
}
EVERYONES = {"checks", "errors", "terminal", "__init__"}
PIPELINES = ("tensorflow", "seqio", "t5", "tensorflow_datasets", "apache_beam")
# What storage does for everyone: with any of these a file is replaced, locked or grown.
PRIMITIVES = re.compile(
    r"\bfcntl\b|\bos\.(replace|rename|link|fsync)\(|\.rename\(|\bmkstemp\(|\bmkdtemp\("
    r"|\bopen\([^)]*[\"'][awx]b?\+?[\"']"
)
# Logs are file descriptors of processes; safetensors writes inside a new directory.
ELSEWHERE = {
    "cli/environment.py",
    "cli/hosts.py",
    "interop/safetensors.py",
    "inference/lines.py",
    "sweeps/slots.py",
}


def modules():
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imports(name):
    """All that a file imports, also in functions, but for what only the type checker sees."""
    tree = ast.parse((ROOT / name).read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by dots"
            package = node.module == "switchx"
            yield from (f"switchx.{a.name}" for a in node.names) if package else [node.module]


@pytest.mark.parametrize("room", sorted(FLOORS))
def test_imports_go_down_the_floors(room):
    wrong = []
    for name in modules():
        if name.split("/")[0] != room:
            continue
        for imported in imports(name):
            parts = imported.split(".")
            if parts[0] != "switchx" or len(parts) == 1 or parts[1] in {room, *EVERYONES}:
                continue
            lower = {other for other, floor in FLOORS.items() if floor < FLOORS[room]}
            if parts[1] not in ONLY.get(room, lower) and not (
                FLOORS[room] > 7 and parts[1] == "api"
            ):
                wrong.append(f"{name} imports {imported}")
    assert wrong == []


def test_only_data_imports_pipelines():
    wrong = [
        f"{name} imports {imported}"
        for name in modules()
        if not name.startswith("data/")
        for imported in imports(name)
        if imported.split(".")[0] in PIPELINES
    ]
    assert wrong == []


def test_only_storage_replaces_locks_or_grows_files():
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for name in modules()
        if not name.startswith("storage/") and name not in ELSEWHERE
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1)
        if PRIMITIVES.search(line)
    ]
    assert wrong == []


def test_only_storage_says_what_a_users_path_means():
    """`Path` takes gs://bucket for a folder named gs:, and knows no file://."""
    taken = re.compile(
        r"\bPath\((model_dir|\w+\.\w+_dir|\w+_dir|args\.\w+|output|input)\)(?!\.name)"
    )
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for name in modules()
        if not name.startswith("storage/")
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1)
        if taken.search(line)
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle():
    names = {name.removesuffix("/__init__.py").removesuffix(".py"): name for name in modules()}
    below = {
        name: {
            part
            for imported in imports(file)
            if (part := imported.removeprefix("switchx.").replace(".", "/")) in names
            and not f"{name}/".startswith(f"{part}/")  # a package's face names its parts
        }
        for name, file in names.items()
    }

    def reached(name):
        seen, todo = set(), [name]
        while todo:
            new = below[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    assert [name for name in names if name in reached(name)] == []


# Of the environment, and of sweeps, whose files alone have them.
OTHER_SETTINGS = {"JAX_PLATFORMS", "PYTHONOPTIMIZE", "XLA_FLAGS", "BUDGET_FLOPS", "SWEEP_DIR"}


def test_errors_name_settings_that_there_are():
    """NAME={value!r} in a message is a macro of configs/base.gin."""
    macros = set(
        re.findall(r"^([A-Z][A-Z0-9_]*) *=", (ROOT / "../configs/base.gin").read_text(), re.M)
    )
    named = {
        (found, name)
        for name in modules()
        for found in re.findall(r"(?<![\w.%])([A-Z][A-Z0-9_]{3,})=\{", (ROOT / name).read_text())
    }
    assert named
    assert not [each for each in named if each[0] not in macros | OTHER_SETTINGS]
