"""`switchx compare` task by task: figures 7 and 8, against the closed form of made-up losses."""

import csv
import json
import re

import numpy as np
import pytest

from switchx.cli.main import main
from switchx.data.tasks import names
from tests.reports import browser
from tests.reports.made_up import loss, make_run

TASKS = [names.json_task(language) for language in names.LANGUAGES]
# As the paper's histogram is said to be: 107 tasks, ten of them below 4, the mean about 5.
FASTER = np.concatenate([np.linspace(2.9, 3.9, 10), np.linspace(4.0, 6.4, 97)])
STEPS = 1000


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages")
    slow = dict(zip(TASKS, np.linspace(0.5, 2, len(TASKS)).tolist(), strict=True))
    fast = {task: slow[task] * by for task, by in zip(TASKS, FASTER.tolist(), strict=True)}
    make_run(folder / "dense", every=25, tasks=slow)
    make_run(folder / "switch", 4, speed=5, every=25, tasks=fast)
    worse = {task: speed * (3 if task == TASKS[0] else 0.5) for task, speed in slow.items()}
    make_run(folder / "worse", tasks=dict(list(worse.items())[:3]), LEARNING_RATE=0.5)
    make_run(folder / "none")
    return folder


def compare(folder, *runs, out="out"):
    arguments = [str(folder / run) for run in runs]
    assert main(["compare", *arguments, f"--output={folder / out}"]) == 0
    return json.loads((folder / out / "report.json").read_text())


@pytest.fixture(scope="module")
def languages(found):
    return compare(found, "dense", "switch")


def test_each_language(found, languages):
    made = {one["task"]: one for one in languages["tasks"]}
    assert sorted(made) == sorted(TASKS)
    for number, task in enumerate(TASKS):
        slow = np.linspace(0.5, 2, len(TASKS))[number]
        before, after = loss(STEPS, slow), loss(STEPS, slow * FASTER[number])
        assert made[task]["baseline_loss"] == pytest.approx(before, rel=1e-4)
        assert made[task]["gain"] == pytest.approx(before - after, rel=1e-3)
        assert made[task]["speed_up"] == pytest.approx(FASTER[number], rel=0.01)
        assert made[task]["own_steps"] == pytest.approx(STEPS / FASTER[number], rel=0.01)
    gains = [one["gain"] for one in languages["tasks"]]
    assert gains == sorted(gains, reverse=True)
    rows = list(csv.DictReader((found / "out" / "tasks.csv").open()))
    assert [float(row["gain"]) for row in rows] == gains


def test_all_languages_together(languages):
    (together,) = languages["tasks_together"]
    assert (together["tasks"], together["better"], together["reached"]) == (107, 107, 107)
    assert together["mean_speed_up"] == pytest.approx(FASTER.mean(), rel=0.01)
    assert together["at_least"] == pytest.approx(np.mean(FASTER >= 4), abs=0.01)


def test_the_figures(found, languages):
    by_id = {figure["id"]: figure for figure in languages["figures"]}
    losses = by_id["tasks-losses"]
    codes = dict(zip(TASKS, (code.replace("-", "_") for code in names.LANGUAGES), strict=True))
    assert losses["x"]["names"] == [codes[one["task"]] for one in languages["tasks"]]
    series = {one["name"]: one for one in losses["series"] if one["style"] == "points"}
    assert list(series) == ["dense", "switch"]
    for one, result in enumerate(languages["tasks"]):
        assert series["switch"]["points"][one]["y"] == result["loss"]
    bars, *lines = by_id["tasks-speed-ups"]["series"]
    assert sum(point["y"] for point in bars["points"]) == 107
    values, width = np.array([o["speed_up"] for o in languages["tasks"]]), bars["width"]
    for point in bars["points"]:  # a value on the edge of two bars is in either
        inside = np.abs(values - point["x"]) <= width / 2
        assert abs(inside.sum() - point["y"]) <= 1
    assert [line["points"][0]["x"] for line in lines] == pytest.approx([4, FASTER.mean()], rel=0.01)
    for name in ("tasks-losses", "tasks-speed-ups"):
        assert (found / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_that_never_comes_to_the_loss(found, capsys):
    made = compare(found, "dense", "switch", "worse", out="three")
    assert len({one["task"] for one in made["tasks"]}) == 3
    switch, worse = made["tasks_together"]
    assert (worse["better"], worse["reached"], worse["at_least"]) == (1, 1, 0)
    assert worse["mean_speed_up"] == pytest.approx(3, rel=0.02)
    assert switch["tasks"] == 3
    out = capsys.readouterr().out
    assert re.search(r"^worse +dense +3 +1 +[+-]0\.\d+ +[23]\.\d\d. +0% +2$", out, re.MULTILINE)


def test_without_tasks_it_is_said(found):
    made = compare(found, "dense", "none", out="without")
    assert made["tasks"] == []
    whys = {one["name"]: one["why"] for one in made["left_out"]}
    assert "(EVAL_EACH_TASK)" in whys["Loss of each task (figures 7 and 8)"]
    assert not (found / "without" / "tasks-losses.png").exists()


@browser.needed
def test_the_page_draws_them(found, languages, tmp_path):
    script = """
        const of = (id) => document.querySelector(`#figure-${id} svg`);
        return [of("tasks-speed-ups").querySelectorAll(".bars rect").length,
                of("tasks-losses").querySelectorAll(".points circle").length,
                [...of("tasks-losses").querySelectorAll("text.tick")].map((t) => t.textContent)];
    """
    bars, dots, ticks = browser.run((found / "out" / "report.html").read_text(), script, tmp_path)
    by_id = {figure["id"]: figure for figure in languages["figures"]}
    assert bars == len(by_id["tasks-speed-ups"]["series"][0]["points"])
    assert dots == 2 * 107
    assert by_id["tasks-losses"]["x"]["names"][0] in ticks
