"""gin files at URLs, and what they include."""

import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.settings import load
from tests.settings.test_loading import DENSE, STEPS, TASK, asked, settings

ODD = "a b/ü/50%41#?[1]"


def test_a_file_at_a_url_and_what_it_includes(store):
    folder = f"{store.folder()}/{ODD}"
    files = {
        "deep/outer.gin": "include 'inner.gin'\ninclude '../up.gin'\n",
        "deep/inner.gin": "SEED = 7\ninclude 'configs/models/tiny_dense.gin'\n",
        "up.gin": f"EVAL_STEPS = 5\ninclude '{folder}/named.gin'\n",
        "named.gin": "LOG_PERIOD = 3\n",
    }
    for name, text in files.items():
        storage.write_whole(f"{folder}/{name}", text)
    found = settings(DENSE, f"--gin_file={folder}/deep/outer.gin", TASK, STEPS)
    assert (found.data.seed, found.data.eval_batches, found.run.trainer.log_period) == (7, 5, 3)
    searched = settings(DENSE, f"--gin_search_paths={folder}", "--gin_file=named.gin", TASK, STEPS)
    assert searched.run.trainer.log_period == 3


def test_a_saved_configuration_names_its_run(gs):
    """With few requests: whether it is there, of which format, and its text once."""
    folder = gs.folder()
    storage.write_whole(f"{folder}/config.gin", settings("--gin.SEED=5").resolved)
    for flag in (f"--gin_file={folder}/config.gin", f"--model_dir={folder}"):
        gs.requests.clear()
        found = load(asked(flag).of_run())
        assert (found.model_dir, found.data.seed) == (folder, 5)
        assert gs.requests["GET"] <= 5, gs.requests


def test_file_and_home_name_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b.gin").write_text("SEED = 3\n")
    for name in (f"file://{tmp_path}/a%20b.gin", "~/a b.gin"):
        assert settings(DENSE, f"--gin_file={name}", TASK, STEPS).data.seed == 3


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{gs}/gone.gin", r"--gin_file='gs://.*/gone.gin' was not found: see that its bucket"),
        ("gs://no-such-bucket/a.gin", r"was not found: see that its bucket and name are right"),
        ("gcs2://b/a.gin", r"--gin_file='gcs2://b/a.gin' has a scheme that is not known"),
        ("{gs}/not_text.gin", r"leads to 'gs://.*/not_text.gin', which is not UTF-8"),
        ("{gs}/outer.gin", r"include 'x.gin' \(gs://.*/outer.gin line 1\) was not found"),
        ("{gs}/odd.gin", r"include \(.*/odd.gin line 1\)='abc://x/y' has a scheme that is not"),
        ("{gs}/circle.gin", r"include 'circle.gin' \(.*\) includes itself"),
    ],
)
def test_a_file_that_cannot_be_had(gs, path, says):
    folder = gs.folder()
    storage.write_whole(f"{folder}/not_text.gin", b"\xff\xfe")
    storage.write_whole(f"{folder}/outer.gin", "include 'x.gin'\n")
    storage.write_whole(f"{folder}/odd.gin", "include 'abc://x/y'\n")
    storage.write_whole(f"{folder}/circle.gin", "include 'circle.gin'\n")
    with pytest.raises(UserError, match=says):
        settings(DENSE, f"--gin_file={path.format(gs=folder)}", TASK, STEPS)


@pytest.mark.parametrize(
    ("status", "says"), [(401, "no valid credentials: for gs://"), (403, "permission denied")]
)
def test_a_file_that_may_not_be_read(gs, status, says):
    url = f"{gs.folder()}/a.gin"
    gs.choose = lambda method, path: status
    with pytest.raises(UserError, match=rf"--gin_file='{url}' leads to .*cannot be read \({says}"):
        settings(DENSE, f"--gin_file={url}", TASK, STEPS)
