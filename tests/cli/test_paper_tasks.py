"""A GLUE, a SQuAD, a summarization, a closed-book and a ranking task from files, by the command."""

import json

import pytest

from switchx.training.run_reader import metric_rows
from tests.data.tasks.sets import SETS, write_json, write_parquet

pytestmark = pytest.mark.usefixtures("one_device")

FOLDERS = {
    "glue_cola_v002": "cola",
    "squad_v010_allanswers": "v1.1",
    "xsum_v110": "xsum",
    "trivia_qa_open": "unfiltered.nocontext",
    "arc_easy_v100": "ARC-Easy",
}
SMALL = [
    "--gin.MIXTURE_OR_TASK_MODULE='tests.data.paper_mixture'",
    "--gin.MIXTURE_OR_TASK_NAME='one_of_each'",
    "--gin.TASK_FILES={'train': '{config}/train.*', 'validation': '{config}/validation.*'}",
    "--gin.VOCABULARY='bytes'",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_STEPS=1",
    "--gin.EVAL_PERIOD=1",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
    "--gin.ModelConfig.vocab_size=384",
    "--gin.ModelConfig.d_model=16",
    "--gin.ModelConfig.d_ff=32",
    "--gin.ModelConfig.num_layers=1",
    "--gin.ModelConfig.switch=None",
    "--gin.TRAIN_STEPS=1",
    "--model_dir=run",
]


def lines_of(folder, task):
    text = (folder / f"run/predictions/{task}/1.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_one_task_of_each_kind_from_files_to_scores(command, tmp_path):
    from t5.data.glue_utils import GLUE_METRICS
    from t5.evaluation import metrics

    for task, folder in FOLDERS.items():
        (tmp_path / folder).mkdir()
        rows = SETS[task].published
        write_parquet(tmp_path / folder / "train.parquet", rows)
        write_json(tmp_path / folder / "validation.jsonl", rows)
    trained = command("train", *SMALL)
    assert trained.status == 0, trained.err
    tasks = {task: task for task in FOLDERS} | {"arc_easy_v100": "arc_easy_v100_score_eval"}
    lines = {task: lines_of(tmp_path, task) for task in tasks.values()}
    for task, of in lines.items():
        choices = 3 if task.endswith("_score_eval") else 1
        assert len(of) == len(SETS[task.removesuffix("_score_eval")].published) * choices
    functions = {
        "glue_cola_v002": GLUE_METRICS["cola"][0],
        "squad_v010_allanswers": metrics.squad,
        "xsum_v110": metrics.rouge,
        "trivia_qa_open": metrics.trivia_qa,
    }
    found = {row["split"]: row for row in metric_rows(tmp_path / "run")}
    for task, function in functions.items():
        targets, answers = ([line[of] for line in lines[task]] for of in ("target", "prediction"))
        for name, value in function(targets, answers).items():
            assert found[f"validation/{task}"][f"score/{name}"] == pytest.approx(value), task
    assert lines["squad_v010_allanswers"][0]["target"] == ["Lourdes", "in Lourdes"]
    ranked = max(lines["arc_easy_v100_score_eval"], key=lambda line: line["score"])
    accuracy = found["validation/arc_easy_v100_score_eval"]["score/accuracy"]
    assert accuracy == 100 * ranked["target"][1]
