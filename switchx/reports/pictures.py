"""The pictures a run leaves, drawn from its metrics.jsonl alone: losses, loads of experts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from switchx import storage
from switchx.training.run_reader import metric_rows

TRAIN, VALIDATION, REFERENCE = "#4c78a8", "#e45756", "#666666"
# In even shares: an expert of less load serves next to no tokens. Everything that reports experts
# counts, names and paints as dead what is below it.
DEAD_LOAD = 1 / 8
MOST_LOAD, DEAD = 8, "#1a1a1a"
# More rows of metrics than this would be narrower than a pixel in their panel.
MOST_COLUMNS = 300


def draw(model_dir: str | Path, layer_names: Sequence[str] = ()) -> list[Path]:
    """Draws loss.png, and expert_load.png if there are experts to choose from.

    Returns what was drawn.

    Args:
      layer_names: titles of the switch layers, as `switchx.training.metrics.layer_names` gives.
    """
    rows, drawn = metric_rows(model_dir), []
    directory = storage.as_path(model_dir, "MODEL_DIR")
    if any("loss" in row for row in rows):
        drawn.append(save(_loss_figure(rows), directory / "loss.png"))
    loaded = [row for row in rows if row["split"] == "train" and "load" in row]
    if loaded and len(loaded[0]["load"][0]) > 1:
        drawn.append(save(_load_figure(loaded, layer_names), directory / "expert_load.png"))
    return drawn


def curve(rows: list[dict[str, Any]], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one scalar, in order of steps, without those that were not finite."""
    points = {row["step"]: row[name] for row in rows if row["split"] == split and name in row}
    finite = sorted((step, value) for step, value in points.items() if value is not None)
    steps_values = np.array(finite, float).reshape(-1, 2)
    return steps_values[:, 0], steps_values[:, 1]


def thin(array: np.ndarray, most: int) -> np.ndarray:
    """Means of consecutive rows, so that at most `most` rows are left."""
    parts = min(most, len(array))
    return np.stack([part.mean(axis=0) for part in np.array_split(array, parts)])


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Means over the `window` points around each (fewer at the ends)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    # The canvas is made here, not by pyplot: no display is looked for, no global state changed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> Path:
    """Writes a figure as PNG, whole or not at all."""
    with storage.whole_file(path) as part:
        figure.savefig(part, dpi=130, format="png")
    return path


def _loss_figure(rows: list[dict[str, Any]]) -> Any:
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    finals, values = [], []
    for split, draw_one in (("train", _draw_train), ("validation", _draw_validation)):
        steps, losses = curve(rows, split, "loss")
        if len(steps):
            finals.append(f"{split} {draw_one(axes, steps, losses):.3f}")
            values.append(losses)
    _, entropy = curve(rows, "validation", "unigram_entropy")
    if len(entropy):
        values.append(entropy[-1:])
        label = f"unigram entropy of the targets, {entropy[-1]:.3f}"
        axes.axhline(entropy[-1], color=REFERENCE, linestyle="--", linewidth=1.2, label=label)
    _scale_losses(axes, np.concatenate(values) if values else np.ones(1))
    _label_steps(axes)
    axes.set_ylabel("loss (nats per token)")
    axes.set_title("final loss: " + ", ".join(finals), loc="left", fontsize=12)
    plain_axes(axes)
    axes.legend(frameon=False)
    return figure


def plain_axes(axes: Any) -> None:
    """A light grid, and no frame where there is no scale."""
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_train(axes: Any, steps: np.ndarray, losses: np.ndarray) -> float:
    """Draws the curve, smoothed over its own noise where long; returns its last value."""
    if len(steps) < 60:
        axes.plot(steps, losses, color=TRAIN, linewidth=1.8, label="train")
        return float(losses[-1])
    smoothed = smooth(losses, len(losses) // 40)
    axes.plot(steps, losses, color=TRAIN, linewidth=0.8, alpha=0.35)
    axes.plot(steps, smoothed, color=TRAIN, linewidth=1.8, label="train, smoothed")
    return float(smoothed[-1])


def _draw_validation(axes: Any, steps: np.ndarray, losses: np.ndarray) -> float:
    marker = "o" if len(steps) <= 40 else None
    style = {"color": VALIDATION, "linewidth": 1.8, "marker": marker, "markersize": 4}
    axes.plot(steps, losses, label="validation", **style)
    return float(losses[-1])


def _scale_losses(axes: Any, losses: np.ndarray) -> None:
    """A logarithmic axis where the loss falls far, so that its end can be read as well."""
    if losses.min() <= 0 or losses.max() < 2 * losses.min():
        return
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _label_steps(axes: Any) -> None:
    def short(step: float, _: int) -> str:
        return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"

    axes.xaxis.set_major_formatter(short)
    axes.set_xlabel("step")


def _load_figure(rows: list[dict[str, Any]], layer_names: Sequence[str]) -> Any:
    """One panel per layer, encoder on the left, decoder on the right, a dropped line below each."""
    load_TNE = thin(np.array([row["load"] for row in rows], float), MOST_COLUMNS)
    edges_T = _edges(thin(np.array([row["step"] for row in rows], float), MOST_COLUMNS))
    dropped_TN = _dropped(rows, load_TNE.shape[1])
    N = load_TNE.shape[1]
    columns = 2 if N > 1 else 1
    lines = -(-N // columns)
    figure = new_figure(4.6 * columns + 0.9, 2.5 * lines + 0.9)
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[3.2, 1] * lines)
    heats, strips, image = [], [], None
    for layer in range(N):
        column, line = divmod(layer, lines)
        heat = figure.add_subplot(grid[2 * line, column])
        strip = figure.add_subplot(grid[2 * line + 1, column], sharex=heat)
        image = _draw_load(heat, edges_T, load_TNE[:, layer])
        heat.set_title(_title(layer_names, layer, N), loc="left", fontsize=11)
        _draw_dropped(strip, edges_T, dropped_TN[:, layer], dropped_TN)
        if line == lines - 1:
            _label_steps(strip)
        else:
            strip.tick_params(labelbottom=False)
        heats.append(heat)
        strips.append(strip)
    _label_left(heats[:lines], strips[:lines])
    _colour_bar(figure, image, heats + strips)
    return figure


def _edges(steps_T: np.ndarray) -> np.ndarray:
    """Where one row's column ends and the next begins."""
    if len(steps_T) == 1:
        return np.array([steps_T[0] - 0.5, steps_T[0] + 0.5])
    middle = (steps_T[1:] + steps_T[:-1]) / 2
    return np.concatenate([2 * steps_T[:1] - middle[:1], middle, 2 * steps_T[-1:] - middle[-1:]])


def _dropped(rows: list[dict[str, Any]], layers: int) -> np.ndarray:
    missing = [None] * layers
    return thin(
        np.array([row.get("dropped_fraction", missing) for row in rows], float), MOST_COLUMNS
    )


def _title(layer_names: Sequence[str], layer: int, layers: int) -> str:
    if layer < len(layer_names):
        return layer_names[layer]
    stack = "encoder" if layer < layers // 2 else "decoder"
    return f"{stack}, switch layer {layer % max(layers // 2, 1) + 1}"


def _draw_load(axes: Any, edges_T: np.ndarray, load_TE: np.ndarray) -> Any:
    """Heat map of load in even shares: white is an even share, black a dead expert."""
    import matplotlib
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    E = load_TE.shape[1]
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(under=DEAD, bad=DEAD)
    image = axes.pcolormesh(
        edges_T,
        np.arange(E + 1) - 0.5,
        np.maximum(load_TE.T * E, 1e-9),
        norm=LogNorm(DEAD_LOAD, MOST_LOAD),
        cmap=colours,
        rasterized=True,
    )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.invert_yaxis()
    axes.tick_params(labelbottom=False, bottom=False)
    return image


def _draw_dropped(
    axes: Any, edges_T: np.ndarray, dropped_T: np.ndarray, of_all_layers: np.ndarray
) -> None:
    percent_T = 100 * dropped_T
    axes.stairs(percent_T, edges_T, color=TRAIN, fill=True, alpha=0.35)
    axes.stairs(percent_T, edges_T, color=TRAIN, linewidth=1.2, baseline=None)
    most = np.nanmax(100 * of_all_layers, initial=0.0)
    axes.set_ylim(0, max(1.05 * most, 1.0))  # one scale for all layers
    axes.spines[["top", "right"]].set_visible(False)
    if np.isfinite(percent_T[-1]):
        text = f"{percent_T[-1]:.1f} % dropped at the end"
        axes.text(0.99, 0.92, text, transform=axes.transAxes, ha="right", va="top", fontsize=8.5)


def _label_left(heats: list[Any], strips: list[Any]) -> None:
    for heat in heats:
        heat.set_ylabel("expert")
    for strip in strips:
        strip.set_ylabel("dropped\n(%)", fontsize=8.5)


def _colour_bar(figure: Any, image: Any, axes: list[Any]) -> None:
    # As long as in a figure of two rows, however many there are.
    shrink = min(0.85, 4.2 / figure.get_figheight())
    bar = figure.colorbar(
        image, ax=axes, extend="min", shrink=shrink, aspect=26, pad=0.02, anchor=(0.0, 1.0)
    )
    ticks = [DEAD_LOAD, 1 / 4, 1 / 2, 1, 2, 4, 8]
    bar.set_ticks(ticks, labels=["⅛", "¼", "½", "1", "2", "4", "8"])
    bar.minorticks_off()
    bar.set_label("load, in even shares (black: below ⅛)")
