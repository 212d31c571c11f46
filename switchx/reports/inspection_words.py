"""What experts do, in words, for a reader who knows neither the model nor the code."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from switchx.reports.pictures import DEAD_LOAD

# When an expert is said to have a job: shares of its tokens, and how many times those of all.
_MOSTLY, _MORE, _TIMES = 0.5, 0.2, 1.5
_FEW, _OF_FEW, _CLEAREST = 5, 0.25, 4
_LEAST = 50  # tokens of an expert of which anything is said
# Of the way from chance to certainty: see `strength`.
_DECIDES, _MATTERS, _HARDLY = 0.45, 0.2, 0.05
_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_READ, _NEXT = "token", "next_token"


class Job(NamedTuple):
    """What an expert does.

    Attributes:
      clear: how much more of its tokens it is than of all; 0 where nothing can be named.
    """

    text: str
    clear: float


def job(expert: Mapping[str, Any], layer: Mapping[str, Any], document: Mapping[str, Any]) -> Job:
    """What an expert gets, from the kinds and the tokens that it gets more often than others."""
    if expert["load"] * len(layer["load"]) < DEAD_LOAD or not expert["tokens"]:
        return Job("Next to nothing: it is hardly ever chosen", 0.0)
    if expert["tokens"] < _LEAST:
        return Job(f"Too few tokens to say: {expert['tokens']} of those read here", 0.0)
    everywhere = document["kinds_of_tokens"][layer["stack"]]
    kinds = zip(document["kinds"], expert["kinds"], everywhere, strict=True)
    name, share, of_all = max(kinds, key=lambda kind: kind[1] - kind[2])
    so_many = f"{percent(share)} of its tokens, {percent(of_all)} of all"
    if share >= _MOSTLY and share >= _TIMES * of_all:
        return Job(f"Mostly {name} ({so_many})", share - of_all)
    few, of_few = _few(expert, layer, document)
    if few >= max(_OF_FEW, _TIMES * of_few):
        which = " ".join(piece(document, number) for number, *_ in expert["typical"][:_FEW])
        return Job(f"{_FEW} tokens are {percent(few)} of what it gets: {which}", (few - of_few) / 2)
    if share >= _MORE and share >= _TIMES * of_all:
        return Job(f"More {name} than others ({so_many})", share - of_all)
    return Job("A bit of everything", 0.0)


def _few(
    expert: Mapping[str, Any], layer: Mapping[str, Any], document: Mapping[str, Any]
) -> tuple[float, float]:
    """The share of its tokens, and of all, that its most typical few are."""
    typical = expert["typical"][:_FEW]
    total = sum(source["tokens"][layer["stack"]] for source in document["sources"])
    if len(typical) < _FEW:
        return 0.0, 0.0
    found, everywhere = (sum(row[n] for row in typical) for n in (1, 2))
    return found / expert["tokens"], everywhere / total


def strength(agreement: Mapping[str, float | None]) -> float:
    """How far from chance (0) to certainty (1) an agreement is."""
    found, chance = agreement["found"], agreement["chance"]
    if found is None or chance is None or chance >= 1:
        return 0.0
    return (found - chance) / (1 - chance)


def of_layer(layer: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """What decides in a layer, in sentences."""
    by = {name: strength(layer["same_expert"][name]) for name in (_READ, _NEXT)}
    name = max(by, key=lambda one: by[one])
    pair = layer["same_expert"][name]
    if name == _READ:
        what, those = "the token", "two occurrences of the same token"
    elif layer["stack"] == "decoder":
        what, those = "the token to be written", "two places that write the same token"
    else:
        what, those = "the token behind it", "two tokens with the same one behind them"
    if by[name] < _HARDLY:
        said = [f"Nothing decides: tokens go where they go as if by lot ({_pairs(pair, those)})."]
    else:
        how = "decides" if by[name] >= _DECIDES else "matters"
        how = "matters a little" if by[name] < _MATTERS else how
        said = [f"{what.capitalize()} {how}: {_pairs(pair, those)}."]
    return said + _of_source(layer, sources)


def _pairs(pair: Mapping[str, Any], those: str) -> str:
    found, chance = percent(pair["found"] or 0), percent(pair["chance"] or 0)
    return f"{those} go to the same expert in {found} of cases, any two in {chance}"


def _of_source(layer: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    pair, alone = layer["same_expert"]["source"], layer["source_by_tokens_alone"]
    if len(sources) < 2 or pair["found"] is None or alone is None:
        return []
    beyond = pair["found"] - alone
    if beyond > 0.02:
        return [
            f"Where a text comes from matters too, beyond the words that it uses ({percent(alone)} "
            f"of pairs would agree by these, and {percent(pair['found'])} do)."
        ]
    return ["Where a text comes from adds nothing to the words that it uses."]


def answer(document: Mapping[str, Any]) -> list[str]:
    """Which expert does what, or that none does: the first thing that is read."""
    layers = document["layers"]
    if not layers:
        return [
            "This model has no experts: it is dense, so every token goes through the same weights. "
            "Below are the text that it was given, how surprised it was by each token that it had "
            "to write, and its training.",
        ]
    jobs = {
        f"expert {expert['expert']} of {layer['name']}": job(expert, layer, document)
        for layer in layers
        for expert in layer["experts"]
    }
    named = sum(one.clear > 0 for one in jobs.values())
    if not named:
        said = f"No: none of the {len(jobs)} experts has a job that could be named."
    elif named == len(jobs):
        said = f"All {len(jobs)} experts have a job that can be named, below."
    else:
        said = (
            f"{named} of {len(jobs)} experts have a job that can be named, below; the others take "
            "a bit of everything or next to nothing."
        )
    return [said, *_clearest(jobs), *_worth(document), *_drops(document)]


def _clearest(jobs: Mapping[str, Job]) -> list[str]:
    order = sorted(jobs, key=lambda name: -jobs[name].clear)
    said = [f"{name} ({_begun(jobs[name].text)})" for name in order[:_CLEAREST] if jobs[name].clear]
    return [f"The clearest: {', '.join(said)}."] if said else []


def _begun(phrase: str) -> str:
    """Within a sentence, without what stands in brackets."""
    return phrase[:1].lower() + phrase[1:].partition(" (")[0]


def _worth(document: Mapping[str, Any]) -> list[str]:
    nats = [
        (expert["nats"], f"expert {expert['expert']} of {layer['name']}")
        for layer in document["layers"]
        for expert in layer["experts"]
        if expert["nats"] is not None
    ]
    if not nats:
        return []
    most, who = max(nats)
    mean = sum(value for value, _ in nats) / len(nats)
    return [
        f"The one that is missed most is {who}: without it the loss rises by {most:.3f} nats per "
        f"token from {document['loss']['nats']:.3f}; without one of them, on average, by "
        f"{mean:.3f}."
    ]


def _drops(document: Mapping[str, Any]) -> list[str]:
    dropped, name = max((layer["dropped"] or 0.0, layer["name"]) for layer in document["layers"])
    if dropped < 0.001:
        return []
    return [f"Experts that are full turn tokens away, most in {name}: {percent(dropped)}."]


def piece(document: Mapping[str, Any], number: int) -> str:
    """A token's text on a line of its own: ⟨0⟩ for a blank, · for a space."""
    said = document["pieces"][number]
    blank = _SENTINEL.fullmatch(said)
    return f"⟨{blank[1]}⟩" if blank else said.replace(" ", "·").replace("\n", "↵")


def percent(share: float) -> str:
    """As 12 %, below 1 as 0.3 %."""
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
