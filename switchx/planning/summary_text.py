"""A configuration's figures as a person reads them."""

from switchx.model import ModelConfig
from switchx.model.counts import mean_width
from switchx.model.routing import Capacity, Pools, Slots
from switchx.planning.summary import Bytes, Summary
from switchx.training.config import RunConfig


def lines(run: RunConfig, summary: Summary, problem: str | None) -> list[str]:
    """Parameters by group, FLOPs, expert capacity and memory; then what would refuse the run."""
    compute = _compute(run, summary) + _capacity(run, summary) + _widths(run.model)
    parts = [_parameters(summary), compute]
    parts.append(_memory(run, summary))
    if problem:
        parts.append([f"This run would be refused: {problem}"])
    return [line for part in parts for line in (*part, "")][:-1]


def _parameters(summary: Summary) -> list[str]:
    total = summary.num_parameters
    rows = [("parameters", total, "")]
    rows += [
        (f"  {name}", count, f"{count / total:7.1%}")
        for name, count in summary.parameters.items()
        if count
    ]
    rows.append(("  used by one token", summary.parameters_per_token, ""))
    trained = summary.parameters_trained
    if trained != total:
        rows.append(("  trained", trained, f"{trained / total:7.1%}"))
    return [
        f"{name:<24}{count:>22,}  {human(count, 'B'):>9}  {share}".rstrip()
        for name, count, share in rows
    ]


def _compute(run: RunConfig, summary: Summary) -> list[str]:
    batch = run.batch
    tokens = " + ".join(str(n) for n in (batch.input_length, batch.target_length) if n) + " tokens"
    forward, step = human(summary.forward_flops), human(summary.step_flops)
    return [
        f"{'FLOPs, forward':<24}{forward + 'FLOPs':>22}  a sequence of {tokens}",
        f"{'FLOPs, training step':<24}{step + 'FLOPs':>22}  {batch.batch_size:,} sequences",
    ]


def _capacity(run: RunConfig, summary: Summary) -> list[str]:
    if not summary.capacity:
        return []
    pools = run.model.switch.ragged_pools if run.model.switch else None
    title = f"capacity of {pools} pools" if pools else "expert capacity"
    lines = ["", f"{title:<24}{'group':>12}{'training':>12}{'evaluation':>12}"]
    for stack, row in summary.capacity.items():
        cells = [_slots(row[name]) for name in ("group_size", "train", "eval")]
        lines.append(f"{'  ' + stack:<24}" + "".join(f"{cell:>12}" for cell in cells))
    return lines


def _slots(capacity: Capacity) -> str:
    """Of all experts or pools, or of each width in their order."""
    if isinstance(capacity, Slots):
        each = [slots for _, slots in capacity.by_width]
    else:
        each = [capacity.slots if isinstance(capacity, Pools) else capacity]
    return " / ".join(f"{slots:,}" for slots in each)


def _widths(model: ModelConfig) -> list[str]:
    """Which experts of several widths a layer has, and what that makes a token's d_ff."""
    widths = model.expert_widths
    if len(widths) < 2:
        return []
    each = ", ".join(f"{number:,} of d_ff {width:,}" for number, width in widths)
    mean = f"{float(mean_width(model)):,.1f}".removesuffix(".0")
    assert model.switch is not None
    by = model.switch.balance_by
    return [f"{'experts of a layer':<24}{each}: {mean} for a token, balanced by {by}"]


def _memory(run: RunConfig, summary: Summary) -> list[str]:
    whole, part = summary.memory, summary.memory_per_device
    lines = [f"{'memory':<24}{'one copy':>12}{'per device':>12}  {run.mesh}"]
    for label, name in (
        ("parameters, float32", "parameters"),
        ("gradients", "gradients"),
        (f"{run.optimizer.name} state", "optimizer"),
        ("together", "total"),
    ):
        lines.append(f"{'  ' + label:<24}{_bytes(whole, name):>12}{_bytes(part, name):>12}")
    return [*lines, "  (activations come on top)"]


def _bytes(memory: Bytes | None, name: str) -> str:
    return "-" if memory is None else human(getattr(memory, name)) + "B"


def human(count: float, billion: str = "G") -> str:
    """A count in thousands, with a decimal: "26.3 G"."""
    for unit in ("", "k", "M", billion, "T", "P"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit else f"{count:.0f} "
        count /= 1000
    return f"{count:,.1f} E"
