"""What was kept of a pruned model's experts, and what that did, for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from switchx.terminal import table

_SHOWN = 12  # experts of a layer


def lines(document: Mapping[str, Any]) -> list[str]:
    """The tables of what `switchx.api.pruning` measured."""
    read = ", ".join(of["name"] for of in document["evaluations"])
    criterion = document["criterion"].replace("_", " x ")
    head = f"step {document['step']:,}, experts by {criterion} on {read}"
    kept = [("layer", "experts kept", "", "of its tokens"), *map(_kept, document["layers"])]
    found = [("", "before", "after"), *_compared(document)]
    return [head, "", *table(kept), "", *table(found)]


def _kept(layer: Mapping[str, Any]) -> tuple[str, str, str, str]:
    kept = layer["kept"]
    shown = " ".join(map(str, kept[:_SHOWN])) + (" ..." if len(kept) > _SHOWN else "")
    what = "dense" if layer["dense"] else f"{len(kept):,} of {len(layer['load']):,}"
    return layer["name"], shown, what, f"{layer['kept_load']:.1%}"


def _compared(document: Mapping[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    yield "parameters", document["parameters"]["before"], document["parameters"]["after"]
    several = len(document["evaluations"]) > 1
    for row in document["evaluations"]:
        name, before, after = (row[key] for key in ("name", "before", "after"))
        of = f"{name}: " if several else ""
        for what in ("loss", "accuracy"):
            yield f"{of}{what}", before[what], after[what]
        for task, values in before.get("scores", {}).items():
            for metric, value in values.items():
                yield f"{task}: {metric}", value, after["scores"][task].get(metric, "")
