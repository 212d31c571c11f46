"""The last and the best of each score, which need not be of one step."""

from switchx.reports.peaks import peaks


def row(step, split, **fields):
    return {"step": step, "split": split, "loss": 1.0, **fields}


def test_last_and_best():
    rows = [
        row(1, "train"),
        row(2, "validation", **{"score/average": 40.0}),
        row(2, "validation/squad", **{"score/em": 30.0, "score/f1": 50.0}),
        row(4, "validation", **{"score/average": 45.0}),
        row(4, "validation/squad", **{"score/em": 30.0, "score/f1": 60.0}),
        row(6, "validation/squad", **{"score/em": 20.0, "score/f1": None}),
        row(6, "rollback"),
        row(6, "validation/unscored"),
    ]
    assert peaks(rows) == [
        ("squad", "em", 20.0, 6, 30.0, 2),
        ("squad", "f1", 60.0, 4, 60.0, 4),
        ("all tasks", "average", 45.0, 4, 45.0, 4),
    ]
    assert peaks(rows[:1]) == []
