"""Tables 6 and 7 of the reproduction: what their runs are, and what the report says of them."""

import dataclasses

import pytest
from reproduction import lesson_report
from reproduction.lessons import (
    CHOICE_SEED,
    GIN_FILE,
    LESSONS,
    SIZES,
    TABLE_6,
    TEACHER_SEED,
    directory,
    student_name,
    teacher_name,
)

import switchx
from switchx.settings import Request
from switchx.sweeps import points, statement

REPOSITORY = GIN_FILE.parents[2]


def run(name, seed, loss):
    losses = [[250, 4.0], [1000, loss]]
    return dict(kind="lesson", name=name, seed=seed, loss=loss, losses=losses, parameters=100)


RESULTS = [
    run("dense", 0, 3.5),
    run("dense", 1, 3.0),
    run("dense", 2, 3.1),
    run("64 experts", TEACHER_SEED, 2.6),
    run("4 experts", TEACHER_SEED, 2.8) | {"parameters": 400},
    run("student of 64", 0, 3.0),
    run("student of 64", 1, 2.9),
    run("student of 64", 2, 2.9),
    run("student of 4", 1, 2.95),
    run("distilled", 0, 3.4),
    {"kind": "run", "name": "dense", "seed": 0},
]


def settings(name, tmp_path, seed=1):
    named = LESSONS[name].set(tmp_path, seed)
    return switchx.configure([str(GIN_FILE)], tmp_path / "run", **named)


def test_teachers_and_dense_models_are_the_sweeps(tmp_path):
    sweep = REPOSITORY / "configs/sweeps/laptop_experts.gin"
    resolved = points.resolve(statement.read(Request((str(sweep),))))
    models = {each.settings.run.model for each in resolved}
    for name in ("dense", *map(teacher_name, SIZES)):
        model = settings(name, tmp_path).run.model
        if model.switch:  # half of the batch and of the room at evaluation
            room = min(16.0, float(model.switch.num_experts))
            sizes = {"encoder_group_size": 64 * 16, "decoder_group_size": 64 * 112}
            switch = dataclasses.replace(model.switch, eval_capacity_factor=room, **sizes)
            model = dataclasses.replace(model, switch=switch)
        assert model in models, name


def test_what_a_run_learns_or_starts_from_is_trained_before_it(tmp_path):
    dense, there = settings("dense", tmp_path), set()
    for name, lesson in LESSONS.items():
        config = settings(name, tmp_path)
        where = {config.objective.teacher, config.start.from_run} - {None}
        assert where <= there, name
        assert (config.run.model == dense.run.model) == (name == "dense" or bool(where))
        there |= {str(tmp_path / directory(name, seed)) for seed in lesson.seeds}


def test_a_students_teacher_is_the_one_whose_gain_it_is_to_keep(tmp_path):
    for experts in SIZES:
        config = settings(student_name(experts), tmp_path)
        where = str(tmp_path / f"{experts}_experts-{TEACHER_SEED}")
        assert config.objective.teacher == config.start.from_run == where


def test_the_papers_recipe_is_what_the_paper_says(tmp_path):
    recipe, baseline = (settings(n, tmp_path) for n in (student_name(64), "initialised"))
    assert (recipe.objective.name, recipe.objective.share) == ("distill", 0.25)
    assert recipe.start == baseline.start
    assert baseline.objective.name == "pretraining"


def test_every_row_has_runs_that_chose_nothing():
    rows = {*(row.lesson for row in TABLE_6), *map(student_name, SIZES)}
    assert all(set(LESSONS[row].seeds) - {CHOICE_SEED} for row in rows)


def test_a_share_is_of_the_gain_over_the_dense_model_of_the_same_seed():
    kept = lesson_report.Losses(RESULTS).kept("student of 64")
    assert kept == pytest.approx({0: 500 / 9, 1: 25.0, 2: 40.0})


def test_what_chose_the_settings_is_in_no_mean():
    text = lesson_report.markdown(RESULTS)
    recipe = "| + 0.75 hard and 0.25 soft loss | 2.9000, 2.9000 | 2.9000 | 32.5 % | -1.580 | 29 % |"
    assert recipe in text
    assert "| distillation | not run |" in text
    assert "| distilled | 3.4000 | 11.1 % | not run |" in text  # but it is among what was tried


def test_a_teachers_size_is_beside_the_papers():
    text = lesson_report.markdown(RESULTS)
    assert "| 4 experts | 400 | 2.8000 | 2.9500 | 2.9500 | 25.0 % | 75 % | 1.1B | -1.505 |" in text


def test_without_a_run_there_is_nothing_to_say(tmp_path):
    other = [result for result in RESULTS if result["kind"] == "run"]
    lesson_report.plot(other, tmp_path / "plot.png")
    assert lesson_report.markdown(other) == ""
    assert not (tmp_path / "plot.png").exists()


def test_the_picture_is_drawn(tmp_path):
    lesson_report.plot(RESULTS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
