"""Which run a request is about: the folder of the configuration that was named."""

import shutil

import pytest

from switchx.errors import UserError
from switchx.settings import Request, changed_settings, load
from tests.settings.test_loading import asked, settings


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run that was started as runs/a."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/a"
    folder.mkdir(parents=True)
    (folder / "config.gin").write_text(settings("--model_dir=runs/a", "--gin.SEED=5").resolved)
    return folder


def test_a_copied_run_goes_on_in_the_copy(run):
    shutil.copytree(run, run.with_name("b"))
    found = settings("--gin_file=runs/b/config.gin")
    assert (found.model_dir, found.data.seed) == ("runs/b", 5)
    assert "MODEL_DIR = 'runs/b'" in found.resolved
    assert changed_settings(found) == []


def test_a_moved_run_goes_on_where_it_is_now(run, monkeypatch):
    there = run.parents[1] / "else where"
    run.rename(there)
    assert settings(f"--gin_file={there}/config.gin").model_dir == str(there)
    monkeypatch.chdir(there)
    assert settings("--gin_file=config.gin").model_dir == "."
    (there / "config.0.gin").write_text((there / "config.gin").read_text())
    assert settings(f"--gin_file={there}/config.0.gin").model_dir == str(there)


def test_a_directory_that_is_named_wins(run):
    file = "--gin_file=runs/a/config.gin"
    assert settings(file, "--model_dir=new").model_dir == "new"
    assert settings(file, "--gin.MODEL_DIR=new").model_dir == "new"


def test_a_users_own_config_gin_says_where_itself(run):
    (run / "config.gin").write_text("include 'configs/runs/quickstart.gin'\nMODEL_DIR = 'mine'\n")
    assert settings("--gin_file=runs/a/config.gin").model_dir == "mine"


def test_a_saved_configuration_under_another_name_is_a_recipe(run):
    (run.parents[1] / "recipe.gin").write_text((run / "config.gin").read_text())
    assert settings("--gin_file=recipe.gin").model_dir == "runs/a"


def test_a_run_that_is_named_alone_is_the_one_that_was_saved(run):
    for flag in ("--model_dir=runs/a", "--gin.MODEL_DIR=runs/a"):
        found = load(asked(flag).of_run())
        assert (found.model_dir, found.data.seed) == ("runs/a", 5)
    with pytest.raises(UserError, match=r"--model_dir=runs/c holds no config\.gin"):
        Request(model_dir="runs/c").of_run()
    other = asked("--gin_file=configs/runs/quickstart.gin", "--model_dir=runs/a")
    assert load(other.of_run()).data.seed == 0
