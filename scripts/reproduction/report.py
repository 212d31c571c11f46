"""Tables, verdicts and the plot, from the results file alone."""

import json
import statistics
from pathlib import Path
from typing import Any

from reproduction.plan import BASELINE, TABLES, VARIANTS, Table

Results = list[dict[str, Any]]


def read(path: Path) -> Results:
    """The finished runs and speeds; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    results = []
    for line in path.read_text().splitlines():
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return results


def runs_of(results: Results, name: str) -> Results:
    return [r for r in results if r["kind"] == "run" and r["name"] == name]


def losses_of(results: Results, name: str) -> list[float]:
    """Final losses; a run that diverged counts as infinite."""
    losses = [run["loss"] for run in runs_of(results, name)]
    return [float("inf") if loss is None else loss for loss in losses]


def speed_of(results: Results, name: str) -> float | None:
    """The latest measurement."""
    found = [r for r in results if r["kind"] == "speed" and r["name"] == name]
    return found[-1]["examples_per_second"] if found else None


def noise(results: Results) -> float:
    """Standard deviation over seeds, pooled over the variants that do not test instability."""
    squares, degrees = 0.0, 0
    for name in VARIANTS:
        losses = losses_of(results, name)
        if len(losses) > 1 and name not in ("init 1.0", "bfloat16"):
            squares += sum((x - statistics.mean(losses)) ** 2 for x in losses)
            degrees += len(losses) - 1
    return (squares / degrees) ** 0.5 if degrees else float("nan")


def markdown(results: Results) -> str:
    """Everything there is to say, as Markdown."""
    sigma = noise(results)
    runs = [r for r in results if r["kind"] == "run"]
    entropy = runs[0]["unigram_entropy"] if runs else float("nan")
    parts = [
        f"{len(runs)} runs; unigram entropy {entropy:.3f} nats; the same model from another "
        f"initialization differs by {sigma:.4f} (standard deviation, pooled over variants).",
        "Loss is that of the held-out batches after the last step, nats per token, mean over "
        "seeds. The paper's figures are negative log perplexities: higher is better.",
    ]
    parts += [_table(results, table, sigma) for table in TABLES]
    return "\n\n".join([*parts, _every_run(results)]) + "\n"


def _table(results: Results, table: Table, sigma: float) -> str:
    lines = [
        f"### {table.title}",
        "",
        "| | loss | spread | seeds | dropped | examples/s | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (label, paper) in table.rows.items():
        losses, runs = losses_of(results, name), runs_of(results, name)
        if not losses:
            lines.append(f"| {label} | not run | | 0 | | | {paper} |")
            continue
        dropped = [r["dropped_fraction"] for r in runs if r["dropped_fraction"] is not None]
        speed = speed_of(results, name)
        cells = (
            label,
            f"{statistics.mean(losses):.4f}",
            f"{max(losses) - min(losses):.4f}",
            len(losses),
            f"{statistics.mean(dropped):.4f}" if dropped else "",
            f"{speed:.0f}" if speed else "",
            paper,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", *_verdicts(results, table, sigma)])


def _verdicts(results: Results, table: Table, sigma: float) -> list[str]:
    label = lambda name: table.rows[name][0]  # noqa: E731
    lines = []
    for better, worse in table.quality:
        gap, error = _gap(results, better, worse, sigma)
        if gap is not None:
            verdict = _verdict(gap, 2 * error)
            lines.append(
                f"- {label(better)} better than {label(worse)}: {verdict} "
                f"(difference {gap:+.4f}, 2 standard errors {2 * error:.4f})"
            )
    for one, other in table.equal:
        gap, error = _gap(results, one, other, sigma)
        if gap is not None:
            verdict = "reproduces" if abs(gap) <= 2 * error else "does not reproduce"
            lines.append(
                f"- {label(one)} as good as {label(other)}: {verdict} "
                f"(difference {gap:+.4f}, 2 standard errors {2 * error:.4f})"
            )
    for faster, slower in table.speed:
        rates = speed_of(results, faster), speed_of(results, slower)
        if rates[0] and rates[1]:
            ratio = rates[0] / rates[1]
            verdict = _verdict(ratio - 1, 0.02)
            lines.append(f"- {label(faster)} faster than {label(slower)}: {verdict} ({ratio:.2f}x)")
    return lines


def _gap(results: Results, better: str, worse: str, sigma: float) -> tuple[float | None, float]:
    """How much lower the first one's mean loss is, and the standard error of that."""
    first, second = losses_of(results, better), losses_of(results, worse)
    if not first or not second:
        return None, float("nan")
    error = sigma * (1 / len(first) + 1 / len(second)) ** 0.5
    return statistics.mean(second) - statistics.mean(first), error


def _verdict(gap: float, resolution: float) -> str:
    if gap > resolution:
        return "**reproduces**"
    return "**the other way round**" if gap < -resolution else "not resolved"


def _every_run(results: Results) -> str:
    lines = [
        "### Every run",
        "",
        "| run | seed | loss | parameters | least used expert | compile s | train s |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in (r for r in results if r["kind"] == "run"):
        loss = "diverged" if run["loss"] is None else f"{run['loss']:.4f}"
        least = "" if run["least_load"] is None else f"{run['least_load']:.3f}"
        lines.append(
            f"| {run['name']} | {run['seed']} | {loss} | {run['parameters']:,} | {least} "
            f"| {run['compile_seconds']:.0f} | {run['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


def plot(results: Results, path: Path) -> None:
    """Loss over steps for 0 to 8 experts; final loss of every run, one dot each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for name in ("dense", "switch 2", "switch 4", BASELINE):
        runs = runs_of(results, name)
        if runs:
            steps = [step for step, _ in runs[0]["losses"]]
            curves = [[_number(loss) for _, loss in run["losses"]] for run in runs]
            left.plot(steps, [statistics.mean(at) for at in zip(*curves, strict=True)], label=name)
    left.set(xlabel="step", ylabel="held-out loss, nats per token", title="Equal FLOPs per token")
    if left.lines:
        left.legend()
    names = [name for name in VARIANTS if runs_of(results, name)]
    for place, name in enumerate(names):
        losses = losses_of(results, name)
        right.plot(losses, [place] * len(losses), "o", alpha=0.7)
    baseline = losses_of(results, BASELINE)
    if baseline:
        right.axvspan(min(baseline), max(baseline), alpha=0.15, label=f"{BASELINE}, its seeds")
        right.legend()
    right.set_yticks(range(len(names)), names)
    right.invert_yaxis()
    right.set(xlabel="held-out loss after the last step, nats per token", title="Every run")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _number(loss: float | None) -> float:
    return float("nan") if loss is None else loss
