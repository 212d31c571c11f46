"""Ways to keep experts equally loaded, and clipping by unit: quality and balance of every run."""

import statistics

from reproduction.plan import BASELINE, INPUT_LENGTH, TARGET_LENGTH, Variant
from reproduction.report import Results, losses_of, runs_of

_NO_LOSS = dict(balance_loss_weight=0.0)
# The baseline's groups are whole batches, of which the loss is in any case.
_ROWS_ALONE = dict(encoder_group_size=INPUT_LENGTH, decoder_group_size=TARGET_LENGTH)

VARIANTS: dict[str, Variant] = {
    "no balance": Variant(2, switch=_NO_LOSS),
    "rows": Variant(2, switch=_ROWS_ALONE),
    "rows, batch loss": Variant(2, switch=dict(**_ROWS_ALONE, balance_loss_over="batch")),
    "bias 0.001": Variant(2, switch=dict(**_NO_LOSS, balance_bias=0.001)),
    "bias 0.01": Variant(2, switch=dict(**_NO_LOSS, balance_bias=0.01)),
    "quantile 0.1": Variant(2, switch=dict(**_NO_LOSS, balance_quantile=0.1)),
    "quantile 1": Variant(2, switch=dict(**_NO_LOSS, balance_quantile=1.0)),
    "loss, clip 0.1": Variant(2, optimizer=dict(clip_by_unit=0.1)),
    "quantile 1, clip 0.1": Variant(
        2, switch=dict(**_NO_LOSS, balance_quantile=1.0), optimizer=dict(clip_by_unit=0.1)
    ),
}
_ROWS = {
    BASELINE: "the paper's loss, the batch one group",
    "rows": "the same, each sequence a group",
    "rows, batch loss": "each sequence a group, `BALANCE_LOSS_OVER='batch'`",
    "no balance": "nothing",
    "bias 0.001": "`BALANCE_BIAS=0.001`, no loss",
    "bias 0.01": "`BALANCE_BIAS=0.01`, no loss",
    "quantile 0.1": "`BALANCE_QUANTILE=0.1`, no loss",
    "quantile 1": "`BALANCE_QUANTILE=1.0`, no loss",
    "loss, clip 0.1": "the paper's loss, `CLIP_BY_UNIT=0.1`",
    "quantile 1, clip 0.1": "`BALANCE_QUANTILE=1.0`, no loss, `CLIP_BY_UNIT=0.1`",
}
# What a run says of its balance, where it says so.
_MEASURED = {
    "train_dropped": "dropped, training",
    "train_largest": "largest load, training",
    "dropped_fraction": "dropped, held out",
    "largest_load": "largest load, held out",
    "dead": "dead experts",
}


def markdown(results: Results) -> str:
    """Means over seeds, then every run; "" where no variant was run."""
    rows = {name: found for name in _ROWS if (found := _measured(results, name))}
    if not rows.keys() & VARIANTS.keys():
        return ""
    heads = ["loss", "spread", "seeds", *_MEASURED.values()]
    lines = ["### Balance", "", f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, found in rows.items():
        losses = losses_of(found, name)
        spread = max(losses) - min(losses)
        cells = [f"{statistics.mean(losses):.4f}", f"{spread:.4f}", str(len(found))]
        cells += [_mean([run[key] for run in found]) for key in _MEASURED]
        lines.append(f"| {_ROWS[name]} | {' | '.join(cells)} |")
    heads = ["run", "seed", "loss", *_MEASURED.values()]
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in rows.items():
        for run, loss in zip(found, losses_of(found, name), strict=True):
            cells = [_mean([run[key]]) for key in _MEASURED]
            lines.append(f"| {name} | {run['seed']} | {loss:.4f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measured(results: Results, name: str) -> Results:
    """The runs that say all of it: earlier ones do not."""
    return [run for run in runs_of(results, name) if "train_dropped" in run]


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f}".removesuffix(".000")
