"""The demonstration's table and picture, from two runs' files."""

import json

import finetune_demo

TASK = "python_docs_prepositions"


def written(folder, scores):
    """A run's directory as far as it is read: scores by step, and predictions of two steps."""
    folder.mkdir(parents=True)
    rows = [{"step": 100, "split": "train", "time": 0.0, "loss": 1.0}]
    rows += [
        {"step": step, "split": f"validation/{TASK}", "time": 0.0, "score/accuracy": score}
        for step, score in scores.items()
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    predictions = folder / "predictions" / TASK
    predictions.mkdir(parents=True)
    for step, targets in ((90, ["at"]), (200, ["of", "to", "of", "in"])):
        lines = (json.dumps({"inputs": "", "target": target}) for target in targets)
        (predictions / f"{step}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_both_runs_are_set_side_by_side(tmp_path, capsys):
    written(tmp_path / "tuned", {100: 50.0, 200: 62.5})
    written(tmp_path / "scratch", {100: 25.0, 200: 37.54})
    finetune_demo.show(tmp_path)
    printed = capsys.readouterr().out
    for line in (
        "step  from the quickstart  from scratch",
        " 100                50.0%         25.0%",
        " 200                62.5%         37.5%",
        "always 'of': 50.0%",  # of the newest predictions
    ):
        assert line in printed.splitlines(), printed
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_both_train_the_same_but_for_the_start(tmp_path, monkeypatch):
    commands = []
    done = type("Done", (), {"returncode": 0})
    monkeypatch.setattr(finetune_demo.subprocess, "run", lambda c: commands.append(c) or done)
    monkeypatch.setattr(finetune_demo, "show", lambda out: None)
    monkeypatch.setattr("sys.argv", ["demo", f"--out={tmp_path}", "--", "--gin.TRAIN_STEPS=7"])
    assert finetune_demo.main() == 0
    tuned, scratch = (set(command) for command in commands)
    assert scratch - tuned == {"--gin.START_FROM=None", f"--model_dir={tmp_path}/scratch"}
    assert tuned - scratch == {
        "--gin.START_FROM=runs/quickstart",
        f"--model_dir={tmp_path}/tuned",
    }
    assert "--gin.TRAIN_STEPS=7" in scratch & tuned
