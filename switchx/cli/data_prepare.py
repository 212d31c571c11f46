"""switchx data prepare: a task or mixture as indexed files that training reads at any place."""

import argparse
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switchx.cli.gin_config import Settings
    from switchx.data.set_plan import SetInfo


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prepares what is missing, and prints what is there."""
    from switchx import data

    began = time.monotonic()
    splits = [split for split in args.splits.split(",") if split]
    sets = data.prepare(settings.data, splits, args.shards, args.beam)
    for line in table(sets):
        print(line)
    print(f"in {settings.data.prepared_dir} after {time.monotonic() - began:.1f} s; train with")
    print(f"  --gin.PREPARED_DIR={settings.data.prepared_dir!r}")


def table(sets: list["SetInfo"]) -> list[str]:
    """A row for each split of each set."""
    head = ("task", "split", "shards", "records", "documents", "tokens", "text MB", "unknown")
    rows: list[tuple[str, ...]] = [head]
    for info in sets:
        for split, shards in info.shards.items():
            tokens = sum(facts.tokens for facts in shards)
            rows.append(
                (
                    info.plan.task,
                    split,
                    f"{len(shards):,}",
                    f"{info.records(split):,}",
                    f"{sum(facts.documents for facts in shards):,}",
                    f"{tokens:,}",
                    f"{sum(facts.text_bytes for facts in shards) / 1e6:,.1f}",
                    f"{sum(facts.unknown for facts in shards) / max(tokens, 1):.3%}",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
