"""What a command does to its process, and what it says of its environment."""

import os
import subprocess
import sys

import pytest


def python(code, *argv, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
    )


NOISY = """
import logging, os, sys, warnings
from switchx.cli import info, main

def run(args):
    os.write(2, b"of a C++ library\\n")
    logging.getLogger("absl").warning("of a logger")
    warnings.warn("of Python")
    print("ours", file=sys.stderr)
    if "run" in sys.argv and args.log:
        args.log.move_to(".")
        os.write(2, b"later\\n")
        logging.getLogger("orbax").warning("logged later")
    if "fail" in sys.argv:
        raise ValueError("unforeseen")

info.run = run
info.add_arguments = lambda parser: parser.add_argument("how", nargs="*")
sys.argv = ["switchx", "info", *sys.argv[1:]]
sys.exit(main.main())
"""
WORDS = ("of a C++ library", "of a logger", "of Python")


def test_on_a_good_day_only_our_own_words_are_shown():
    ended = python(NOISY)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "ours\n")


def test_verbose_shows_all():
    said = python(NOISY, "--verbose").stderr
    assert all(word in said for word in (*WORDS, "ours"))


def test_on_a_bad_day_they_are_shown():
    ended = python(NOISY, "fail")
    assert ended.returncode == 1
    assert all(word in ended.stderr for word in (*WORDS, "ours", "ValueError: unforeseen"))


@pytest.mark.parametrize("how", [["run"], ["run", "fail"]])
def test_those_of_a_run_are_in_its_directory(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    said = python(NOISY, *how).stderr
    assert not any(word in said for word in WORDS)
    assert ("what libraries said is in libraries.log" in said) == ("fail" in how)
    kept = (tmp_path / "libraries.log").read_text()
    assert all(word in kept for word in (*WORDS, "later", "logged later"))


@pytest.mark.parametrize("name", ["cuda", "mistake"])
def test_a_platform_that_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    code = "import sys; from switchx.cli.main import main; sys.exit(main())"
    ended = python(code, "train", JAX_PLATFORMS=name)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"switchx: JAX_PLATFORMS={name} names a platform that is not")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_importing_the_command_line_changes_nothing_in_the_process():
    code = """
import logging, os, sys
def state():
    return dict(os.environ), sys.stderr, logging.root.handlers[:], sys.excepthook
before = state()
import switchx.cli.main, switchx.cli.environment, switchx.cli.flags
assert state() == before
"""
    assert python(code).returncode == 0
