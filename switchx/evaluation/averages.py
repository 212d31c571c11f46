"""Averages over tasks: of all of a mixture, and those by which GLUE and SuperGLUE are known."""

import math
import re
from collections.abc import Mapping
from statistics import mean

TaskScores = Mapping[str, Mapping[str, float]]  # by task, by metric

# Groups of (task, metric), each of which counts as one: Raffel et al. 2020, section 2.3, as
# t5.evaluation.eval_utils has them. WNLI is no part of GLUE's, DPR none of SuperGLUE's.
GLUE = (
    (("cola", "matthews_corrcoef"),),
    (("sst2", "accuracy"),),
    (("mrpc", "f1"), ("mrpc", "accuracy")),
    (("stsb", "pearson_corrcoef"), ("stsb", "spearman_corrcoef")),
    (("qqp", "f1"), ("qqp", "accuracy")),
    (("mnli_matched", "accuracy"), ("mnli_mismatched", "accuracy")),
    (("qnli", "accuracy"),),
    (("rte", "accuracy"),),
)
SUPER_GLUE = (
    (("boolq", "accuracy"),),
    (("cb", "mean_3class_f1"), ("cb", "accuracy")),
    (("copa", "accuracy"),),
    (("multirc", "f1"), ("multirc", "exact_match")),
    (("record", "f1"), ("record", "em")),
    (("rte", "accuracy"),),
    (("wic", "accuracy"),),
    (("wsc", "accuracy"),),
)
_BENCHMARKS = {"glue": GLUE, "super_glue": SUPER_GLUE}
_NAME = re.compile(r"(super_glue|glue)_(\w+?)_v\d+(?:_simple_eval|_sentinel\w*)?")


def averages(scores: TaskScores) -> dict[str, float]:
    """Those that can be told: none of them leaves out a task.

    "average" is the mean over the tasks, of each the mean of its metrics; "glue_average" and
    "super_glue_average" are the means over the groups of these benchmarks.
    """
    found = {}
    if scores and all(scores.values()):
        found["average"] = mean(mean(of.values()) for of in scores.values())
    for benchmark, groups in _BENCHMARKS.items():
        values = _of_benchmark(scores, benchmark)
        if all(key in values for group in groups for key in group):
            found[f"{benchmark}_average"] = mean(mean(values[k] for k in of) for of in groups)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _of_benchmark(scores: TaskScores, benchmark: str) -> dict[tuple[str, str], float]:
    """Values by the task's name within the benchmark, of whatever version, and by metric."""
    found: dict[tuple[str, str], float] = {}
    for task, values in scores.items():
        match = _NAME.fullmatch(task)
        if match and match[1] == benchmark:
            found |= {(match[2], metric): value for metric, value in values.items()}
    return found
