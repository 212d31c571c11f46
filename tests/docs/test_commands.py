"""Every command in the README and docs: run, or held against the parsers, files and settings."""

import importlib
import keyword
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from switchx.cli.flags import Parser, add_common_arguments, request, rewrite_gin_flags
from switchx.cli.main import COMMANDS
from switchx.errors import UserError
from switchx.settings.gin_files import Reader
from switchx.settings.gin_values import BASE, GinConfig
from switchx.sweeps import statement
from tests.conftest import QUICKLY
from tests.docs.pages import ALL, PAGES, ROOT, blocks

SHELL = [block for block in ALL if block.language == "sh"]
MARKS = {"", "run", "run in", "shown", "file", "elsewhere", "cloud"}
LANGUAGES = {"sh", "text", "python", "json", "gin"}
OTHER_PROGRAMS = {"echo", "pip", "source", "ssh-add", "tensorboard"}
CLOUD_PROGRAMS = {"gcloud", "ssh-add", "pip"}


def commands(text):
    """The words of each simple command of a block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = []
        for word in [*lexer, ";"]:
            if word in ("|", "||", "&&", ";", "&"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check(words):
    """Raises for a command that could not be meant."""
    words = [word for word in words if word != "..."]
    program = words[0]
    if program == "switchx":
        check_switchx(words[1:])
    elif program.startswith("scripts/"):
        check_script(program, words[1:])
    elif program in ("python", ".venv/bin/python") and words[1] != "-m":
        check_script(words[1], words[2:])
    elif program == "make":
        check_make(words[1:])
    else:
        assert program in OTHER_PROGRAMS | {".venv/bin/python", "cd"}, program


def check_switchx(words):
    if words[0].startswith("-"):
        assert words == ["--help"]
        return
    command = importlib.import_module(
        f"switchx.cli.{words[0].replace('-', '_')}{'_' if keyword.iskeyword(words[0]) else ''}"
    )
    assert words[0] in COMMANDS
    parser = Parser(prog=f"switchx {words[0]}")
    add_common_arguments(parser)
    command.add_arguments(parser)
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    args = parser.parse_args(rewrite_gin_flags([word for word in own if word != "--gin_file=..."]))
    if words[0] == "sweep":
        if args.gin_file and args.gin_file[-1].startswith("configs/"):
            statement.read(request(args), args.sweep_dir)  # axes and rules have names of their own
        return
    reader = Reader()
    bindings = reader.read_file(BASE)
    for name in args.gin_file or ["configs/runs/quickstart.gin"]:
        if name.startswith("configs/"):  # otherwise a run's own, or the reader's
            bindings += reader.read_file(name)
    GinConfig.of([*bindings, *request(args).bindings]).check_all_used()


def check_script(name, words):
    """The script is there, and knows the subcommand and the flags."""
    path = ROOT / name
    assert path.is_file() or path.is_dir(), f"{name} is not there"
    own, beyond = (
        (words[: words.index("--")], words[words.index("--") + 1 :])
        if "--" in words
        else (words, [])
    )
    known = path.read_text()
    if path.name.startswith("launch_"):
        known += (ROOT / "scripts/launch_common.sh").read_text()
    for word in own:
        if word.startswith("--"):
            flag = word.split("=")[0]
            assert re.search(rf"{flag}\b", known) or f"{flag[2:]})" in known, f"{name}: {flag}"
    if beyond:
        check_switchx(beyond)


def check_make(words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        assert "=" in word or word in targets, f"make {word}"


@pytest.mark.parametrize("block", ALL, ids=str)
def test_blocks_say_what_they_are(block):
    assert block.language in LANGUAGES
    assert block.mark in MARKS
    assert block.about or block.mark in ("", "run", "shown"), "say what it needs, or where it runs"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_ones_that_exist(block):
    for words in commands(block.text):
        if block.mark == "cloud" and not re.match(r"switchx|make|scripts/", words[0]):
            continue
        check(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "switchx trian",
        "switchx train --gin_files=x.gin",
        "switchx train --gin.BATCHSIZE=8",
        "switchx sweep plan --gin_file=configs/sweeps/toy.gin --gin.BATCH_SIZ=8",
        "switchx train --gin_file=configs/models/switch_base_9.gin",
        "scripts/launch_tpu.sh run --nmae=pod -- train",
        "scripts/launch_tpu.sh run --name=pod -- train --gin.BATCHSIZE=8",
        "python scripts/bench_steps.py",
        "make tests",
        "swithcx train",
    ],
)
def test_the_check_finds_mistakes(wrong):
    (words,) = commands(wrong)
    with pytest.raises((UserError, AssertionError, ModuleNotFoundError)):
        check(words)


RUN = [page for page in PAGES if any(block.mark.startswith("run") for block in blocks(page))]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_run(page, trained, tmp_path):
    """A page's blocks that are marked so, in their order, as a reader would type them."""
    shutil.copytree(trained.folder, tmp_path / "trained")
    (tmp_path / "empty").mkdir()
    program = tmp_path / "bin/switchx"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m switchx.cli.main "$@" $TINY\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "XLA_FLAGS": QUICKLY,  # with one device, as readers have, and not the suite's eight
    }
    printed = ""
    for block in blocks(page):
        folder = tmp_path / ("trained" if block.mark == "run in" else "empty")
        tiny = block.about if block.mark == "run" else ""
        if block.mark == "file":
            (folder / block.about).write_text(block.text)
        elif block.mark == "shown":
            assert printed == block.text, str(block)
        elif block.mark.startswith("run"):
            printed = run(block, folder, environment | {"TINY": tiny})


def run(block, folder, environment):
    """What a block's commands print."""
    shell = [sys.executable, "-c"] if block.language == "python" else ["bash", "-ec"]
    ended = subprocess.run(
        [*shell, block.text], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"{block}: {ended.stderr[-2000:]}"
    return ended.stdout
