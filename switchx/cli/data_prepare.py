"""switchx data prepare: a task or mixture as indexed files that training reads at any place."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from switchx.terminal import table

if TYPE_CHECKING:
    from switchx.data.prepared.set_plan import SetInfo
    from switchx.settings import Settings


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prepares what is missing, and prints what is there."""
    from switchx import data

    began = time.monotonic()
    splits = [split for named in args.splits.split(",") if (split := named.strip())]
    sets = data.prepare(settings.data, splits, args.shards, args.beyond)
    for line in set_table(sets):
        print(line)
    print(f"in {settings.data.prepared_dir} after {time.monotonic() - began:.1f} s; train with")
    print(f"  --gin.PREPARED_DIR={settings.data.prepared_dir!r}")


def set_table(sets: list["SetInfo"]) -> list[str]:
    """A row for each split of each set."""
    head = ("task", "split", "shards", "records", "documents", "tokens", "text bytes", "unknown")
    rows: list[tuple[Any, ...]] = [head]
    for info in sets:
        for split, shards in info.shards.items():
            tokens = sum(facts.tokens for facts in shards)
            rows.append(
                (
                    info.plan.task,
                    split,
                    len(shards),
                    info.records(split),
                    sum(facts.documents for facts in shards),
                    tokens,
                    sum(facts.text_bytes for facts in shards),
                    f"{sum(facts.unknown for facts in shards) / max(tokens, 1):.3%}",
                )
            )
    return table(rows)
