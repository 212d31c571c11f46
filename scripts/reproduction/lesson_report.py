"""Tables 6 and 7, and what else was tried, from the results file alone."""

import statistics
from pathlib import Path
from typing import Any

from reproduction.lessons import (
    CHOICE_SEED,
    LARGEST,
    LESSONS,
    SIZES,
    STARTS,
    STEPS,
    TABLE_6,
    TABLE_7,
    student_name,
    teacher_name,
)

Results = list[dict[str, Any]]
RECIPE = student_name(LARGEST)
STUDENTS = [
    name for name, lesson in LESSONS.items() if lesson.teacher == LARGEST and name not in STARTS
]


def title(name: str) -> str:
    """A recipe's name beside others of one teacher."""
    return "the paper's recipe" if name == RECIPE else name


class Losses:
    """The last losses of the runs, by lesson and seed."""

    def __init__(self, results: Results):
        self.runs = [run for run in results if run["kind"] == "lesson"]
        self.of: dict[str, dict[int, float]] = {name: {} for name in LESSONS}
        for run in self.runs:
            self.of[run["name"]][run["seed"]] = run["loss"]

    def reported(self, name: str) -> dict[int, float]:
        """Without the seed by which settings were chosen."""
        return {seed: self.of[name][seed] for seed in sorted(self.of[name]) if seed != CHOICE_SEED}

    def kept(self, name: str) -> dict[int, float]:
        """Percent of the teacher's gain over the dense model of the same seed, by seed.

        Of one seed the data, their order and the fresh parameters are the same.
        """
        experts, dense = LESSONS[name].teacher, self.of["dense"]
        teacher = self.of[teacher_name(experts)] if experts else {}
        return {
            seed: 100 * (dense[seed] - loss) / (dense[seed] - best)
            for best in teacher.values()
            for seed, loss in sorted(self.of[name].items())
            if seed in dense
        }

    def kept_when_reported(self, name: str) -> list[float]:
        return [share for seed, share in self.kept(name).items() if seed != CHOICE_SEED]

    def deviation(self) -> float:
        """Of the percents kept, between seeds, pooled over the students."""
        squares, degrees = 0.0, 0
        for name in LESSONS:
            shares = self.kept_when_reported(name)
            if len(shares) > 1:
                squares += sum((x - statistics.mean(shares)) ** 2 for x in shares)
                degrees += len(shares) - 1
        return (squares / degrees) ** 0.5 if degrees else float("nan")


def markdown(results: Results) -> str:
    """Everything there is to say, as Markdown; nothing without a run."""
    losses = Losses(results)
    if not losses.runs:
        return ""
    said = (
        f"Distillation: {len(losses.runs)} runs. Loss is that of the held-out batches after the "
        "last step, nats per token, for each seed but that of the choice. Kept is the percentage "
        "of the teacher's gain over the dense model of the student's seed, mean over seeds."
    )
    deviation = losses.deviation()
    if deviation == deviation:  # there are two seeds of something
        said += f" Between seeds it differs by {deviation:.1f} (standard deviation, pooled)."
    tables = (
        _table_6(losses),
        _table_7(losses),
        _starts(losses),
        _students(losses),
        _curves(losses),
    )
    return "\n\n".join([said, *tables]) + "\n"


def _table_6(losses: Losses) -> str:
    rows = [("", "loss of each seed", "mean", "kept", "paper", "paper kept")]
    for row in TABLE_6:
        rows.append((LESSONS[row.lesson].label, *_cells(losses, row.lesson), row.paper, row.kept))
    return "### Table 6: distillation\n\n" + _lines(rows)


def _cells(losses: Losses, name: str) -> tuple[str, str, str]:
    """Each loss, their mean, and what is kept."""
    found = losses.reported(name).values()
    if not found:
        return "not run", "", ""
    each = ", ".join(f"{loss:.4f}" for loss in found)
    shares = losses.kept_when_reported(name)
    mean = f"{statistics.mean(shares):.1f} %" if shares else ""
    return each, f"{statistics.mean(found):.4f}", mean


def _table_7(losses: Losses) -> str:
    parameters = {run["name"]: run["parameters"] for run in losses.runs}
    own = ("teacher", "parameters", "loss", "student, each seed", "mean", "kept", "smaller by")
    rows = [(*own, "paper: teacher", "loss", "student", "kept", "smaller by")]
    for experts, paper in zip(SIZES, TABLE_7, strict=True):
        teacher, student = teacher_name(experts), student_name(experts)
        if teacher in parameters and student in parameters:
            smaller = 100 * (1 - parameters[student] / parameters[teacher])
            rows.append(
                (
                    LESSONS[teacher].label,
                    f"{parameters[teacher]:,}",
                    f"{statistics.mean(losses.of[teacher].values()):.4f}",
                    *_cells(losses, student),
                    f"{smaller:.0f} %",
                    *paper,
                )
            )
    return "### Table 7: larger teachers, one student\n\n" + _lines(rows)


def _starts(losses: Losses) -> str:
    """Where the choice of a start comes from."""
    rows = [("feed-forwards", f"loss at step {STEPS // 4}, seed {CHOICE_SEED}")]
    for name in (RECIPE, *STARTS):
        at = [
            loss
            for run in losses.runs
            if (run["name"], run["seed"]) == (name, CHOICE_SEED)
            for step, loss in run["losses"]
            if step == STEPS // 4
        ]
        if at:
            rows.append((title(name), f"{at[0]:.4f}"))
    return "### Starts, with a share of 0.25\n\n" + _lines(rows)


def _students(losses: Losses) -> str:
    """All students of the largest teacher: by the seed that chose, then by those that tell."""
    rows = [("", "seed 0", "kept", "other seeds", "mean", "kept", "lower than the recipe by")]
    for name in STUDENTS:
        if losses.of[name]:
            first, share = losses.of[name].get(CHOICE_SEED), losses.kept(name).get(CHOICE_SEED)
            rows.append(
                (
                    title(name),
                    "" if first is None else f"{first:.4f}",
                    "" if share is None else f"{share:.1f} %",
                    *_cells(losses, name),
                    _better(losses, name) if name != RECIPE else "",
                )
            )
    return f"### Every student of {LARGEST} experts\n\n" + _lines(rows)


def _better(losses: Losses, name: str) -> str:
    """By how much the loss is lower than the recipe's, for each seed that both have."""
    own, other = losses.reported(name), losses.reported(RECIPE)
    return ", ".join(f"{other[seed] - own[seed]:+.4f}" for seed in own if seed in other)


def _curves(losses: Losses) -> str:
    """Every run's losses."""
    steps = range(STEPS // 4, STEPS + 1, STEPS // 4)
    rows: list[tuple[Any, ...]] = [("run", "seed", *(f"step {step:,}" for step in steps))]
    for run in losses.runs:
        at = dict(run["losses"])
        cells = (f"{at[step]:.4f}" if step in at else "" for step in steps)
        rows.append((run["name"], run["seed"], *cells))
    return "### Every run of distillation\n\n" + _lines(rows)


def _lines(rows: list[tuple[Any, ...]]) -> str:
    rows = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def plot(results: Results, path: Path) -> None:
    """What each recipe keeps, a dot for each seed; teachers of every size and their students."""
    losses = Losses(results)
    if not losses.runs:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    names = [name for name in STUDENTS if losses.of[name]]
    for place, name in enumerate(names):
        for seed, share in losses.kept(name).items():
            hollow = {"markerfacecolor": "none"} if seed == CHOICE_SEED else {}
            left.plot(share, place, "o", color="tab:blue", **hollow)
    left.axvline(0, color="grey", linewidth=1)
    left.set_yticks(range(len(names)), map(title, names))
    left.invert_yaxis()
    left.grid(axis="y", alpha=0.3)
    left.set(
        xlabel=f"percent kept of the gain of {LARGEST} experts (hollow: seed {CHOICE_SEED})",
        title="Dense students",
    )
    for label, name_of in (("teacher", teacher_name), ("dense student", student_name)):
        found = {n: losses.reported(name_of(n)) for n in SIZES if losses.reported(name_of(n))}
        means = [statistics.mean(of_seeds.values()) for of_seeds in found.values()]
        line = right.plot(list(found), means, label=label)[0]
        for n, of_seeds in found.items():
            right.plot([n] * len(of_seeds), [*of_seeds.values()], "o", color=line.get_color())
    for loss in losses.reported("dense").values():
        right.axhline(loss, color="grey", linewidth=1, label="dense, each seed")
    right.set_xscale("log", base=2)
    right.set_xticks(SIZES, [str(n) for n in SIZES])
    right.set(xlabel="experts of the teacher", ylabel="held-out loss, nats per token")
    handles, labels = right.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    right.legend(unique.values(), unique.keys())
    figure.savefig(path, dpi=110)
    plt.close(figure)
