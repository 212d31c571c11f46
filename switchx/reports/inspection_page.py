"""The page of an inspection: which expert does what, in words, then everything that says so.

inspection.js shows the layer that a reader chooses; page.js draws training and sorts the tables.
Words and tables are there without any script. Text is only ever set as text, never as HTML.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from switchx.reports.colours import categories
from switchx.reports.html import figure_of, table_of, text, whole_page
from switchx.reports.inspection import of_training
from switchx.reports.inspection_words import percent, piece
from switchx.reports.tables import Cell, Table

_COLOURS = 64  # of experts; further ones take them again
_MOST_ROWS = 512  # of the table of experts
_EXPLAINED = (
    "The encoder reads a text with gaps, the decoder writes what is missing. In a layer with "
    "experts a router sends each token to one of several small networks, its expert, or to a few. "
    "Layers count from 0."
)
_MEASURES = {
    "token": "the same token",
    "next_token": "the same token next",
    "kind": "the same kind of token",
    "source": "the same source",
}


def page(document: Mapping[str, Any]) -> str:
    """The HTML of `inspection.document`."""
    training = of_training(document)
    shown = {name: value for name, value in document.items() if name != "training"}
    title = f"What the experts of {document['name']} do"
    if not document["layers"]:
        title = f"{document['name']} has no experts"
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(_what(document))}</p>',
        '<div class="answer">',
        *(f"<p>{text(sentence)}</p>" for sentence in document["answer"]),
        "</div>",
        "<noscript><p>The text, the experts and the figures are drawn by this page's own script; "
        "the tables are here without it.</p></noscript>",
        *_layers(document),
        *_text_shown(document),
        *_flows(document),
        *_agreement(document),
        *_saturation(document),
        *_over_training(training, bool(document["layers"])),
        *_tables(document),
        *_how(document),
    ]
    styles = ["page.css", "inspection.css", _palette()]
    embedded = {"inspection": shown, **training}
    return whole_page(title, body, embedded, styles, ["page.js", "inspection.js"])


def _palette() -> str:
    return "".join(
        f".e{n} {{ --light: {light}; --dark: {dark}; }}\n"
        for n, (light, dark) in enumerate(categories(_COLOURS))
    )


def _what(document: Mapping[str, Any]) -> str:
    model, sources = document["model"], document["sources"]
    sparse = [layer["name"] for layer in document["layers"]]
    of = f", {model['experts']} experts in " + _listed(sparse) if sparse else ""
    read = _listed([_source(source) for source in sources])
    return (
        f"The checkpoint of step {document['step']:,}: {model['parameters']:,} parameters{of}. "
        f"It read {read}, with a loss of {document['loss']['nats']:.3f} nats per token."
    )


def _source(source: Mapping[str, Any]) -> str:
    tokens = sum(source["tokens"].values())
    return (
        f"{source['examples']:,} rows with {tokens:,} tokens of {source['name']} ({source['said']})"
    )


def _listed(names: Sequence[str]) -> str:
    if len(names) > 8:
        return f"{', '.join(names[:6])} and {len(names) - 6} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _layers(document: Mapping[str, Any]) -> list[str]:
    if not document["layers"]:
        return []
    return [
        '<h2 id="experts">Which expert does what</h2>',
        f'<p class="soft">{text(_EXPLAINED)}</p>',
        *(
            f'<p class="layer-words" data-layer="{n}"><b>{text(layer["name"])}</b> '
            f"{text(' '.join(layer['words']))}</p>"
            for n, layer in enumerate(document["layers"])
        ),
        '<div id="choose" class="bar"></div>',
        '<div id="cards"></div>',
    ]


def _text_shown(document: Mapping[str, Any]) -> list[str]:
    if document["layers"]:
        head, said = (
            "The text, coloured by expert",
            "Point at a token, or move with the arrow keys, for its expert, gate and runner-up. "
            "Click an expert above to see its tokens alone. A token with a dashed line found its "
            "expert full and went past it. ⟨0⟩, ⟨1⟩, … are blanks: what was cut out there is what "
            "the decoder has to write.",
        )
    else:
        head, said = (
            "The text, by surprise",
            "What the decoder had to write, the redder the less it was expected. ⟨0⟩, ⟨1⟩, … are "
            "blanks: what was cut out there is what the decoder has to write.",
        )
    return [
        f"<h2>{head}</h2>",
        f'<p class="soft">{said}</p>',
        '<div id="text" tabindex="0" role="group" aria-label="the text, token by token"></div>',
    ]


def _flows(document: Mapping[str, Any]) -> list[str]:
    if not document["flows"]:
        return []
    return [
        "<h2>Where tokens flow</h2>",
        '<p class="soft">From the kind of token to its expert in each layer of the stack; a band '
        "is as thick as the tokens that it stands for. Were there no pattern, every expert would "
        "get the same mixture. Point at a band or an expert for its numbers.</p>",
        '<div id="flows" class="wide"></div>',
    ]


def _agreement(document: Mapping[str, Any]) -> list[str]:
    if not document["layers"]:
        return []
    parts = [
        "<h2>How specialised they are</h2>",
        '<p class="soft">Draw two tokens that have something in common: how often did they go to '
        "the same expert? The bar is what was found, the mark what the baseline gives: for any two "
        "tokens, and for two of one source what the frequencies of its tokens alone give.</p>",
        '<div class="agreement">',
    ]
    several = len(document["sources"]) > 1
    for layer in document["layers"]:
        parts.append(f"<h3>{text(layer['name'])}</h3>")
        for name, said in _MEASURES.items():
            pair = layer["same_expert"][name]
            baseline = layer["source_by_tokens_alone"] if name == "source" else pair["chance"]
            if pair["found"] is not None and baseline is not None and (name != "source" or several):
                parts.append(_bar(said, pair["found"], baseline))
    parts.append("</div>")
    if several:
        parts += [
            "<h3>Source by source</h3>",
            '<p class="soft">The upper strip is what each source sends to every expert of the '
            "layer chosen above, the lower what its words alone would.</p>",
            '<div id="sources"></div>',
        ]
    return parts


def _bar(said: str, found: float, baseline: float) -> str:
    return (
        f'<div class="measure"><span>{text(said)}</span>'
        f'<div class="track"><i style="width:{100 * found:.1f}%"></i>'
        f'<b style="left:{100 * baseline:.1f}%"></b></div>'
        f"<span>{percent(found)} <small>baseline {percent(baseline)}</small></span></div>"
    )


def _saturation(document: Mapping[str, Any]) -> list[str]:
    if not document["layers"]:
        return []
    parts = ["<h2>Beside earlier checkpoints</h2>"]
    if not document["saturation"]:
        return [*parts, '<p class="soft">No earlier checkpoint of this run is kept.</p>']
    parts += [
        '<p class="soft">The share of these tokens that already went to the same expert then; the '
        "mark is what the loads alone would give. Near 100 % the routing no longer changes.</p>",
        '<div class="agreement">',
    ]
    for layer in [one["name"] for one in document["saturation"][0]["layers"]]:
        parts.append(f"<h3>{text(layer)}</h3>")
        for earlier in document["saturation"]:
            one = next(found for found in earlier["layers"] if found["name"] == layer)
            if one["found"] is not None:
                parts.append(_bar(f"step {earlier['step']:,}", one["found"], one["chance"]))
    return [*parts, "</div>"]


def _over_training(training: Mapping[str, Any], sparse: bool) -> list[str]:
    figures = training["report"]["figures"]
    if not figures:
        said = "This directory holds no metrics of training, as that of an import."
        return ["<h2>Through training</h2>", f'<p class="soft">{said}</p>']
    layers = [g for g in training["report"]["groups"] if not g["name"].startswith("expert ")]
    experts = [g for g in training["report"]["groups"] if g["name"].startswith("expert ")]
    return [
        "<h2>Through training</h2>",
        *(_keys(layers[1:]) + _keys(experts) if sparse else []),
        '<div class="two">',
        *(part for figure in figures for part in figure_of(figure, 3)),
        "</div>",
    ]


def _keys(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = "".join(
        f'<span class="coloured" style="--light:{one["light"]};--dark:{one["dark"]}">'
        f"{text(one['name'])}</span>"
        for one in groups
    )
    return [f'<p class="keys">{keys}</p>']


def _tables(document: Mapping[str, Any]) -> list[str]:
    if not document["layers"]:
        return []
    tables = _experts(document), _favourites(document)
    return [part for table in tables if table.rows for part in table_of(table)]


def _experts(document: Mapping[str, Any]) -> Table:
    rows = []
    for layer in document["layers"]:
        for one in layer["experts"]:
            rows.append(
                (
                    Cell(layer["name"]),
                    Cell(str(one["expert"]), one["expert"]),
                    Cell(percent(one["load"]), one["load"]),
                    _number(one["gate_mean"], "{:.3f}"),
                    _number(one["dropped"], "{:.4f}"),
                    _number(one["nats"], "{:+.4f}"),
                    Cell(one["job"]),
                    Cell("  ".join(piece(document, n) for n, *_ in one["typical"][:8])),
                )
            )
    head = ("layer", "expert", "load", "gate", "dropped", "loss without it", "what it does")
    caption = (
        "Load is the share of the layer's tokens that chose it, gate the weight of its answers, "
        "dropped the share of its tokens that it had no room for."
    )
    if len(rows) > _MOST_ROWS:
        caption += f" The first {_MOST_ROWS} of {len(rows)}; the JSON file has them all."
    return Table(
        "experts", "All experts", caption, (*head, "typical tokens"), tuple(rows[:_MOST_ROWS])
    )


def _favourites(document: Mapping[str, Any]) -> Table:
    rows = []
    for layer in document["layers"]:
        for number, count, expert, share in layer["favourites"][:30]:
            load = layer["load"][expert]
            rows.append(
                (
                    Cell(layer["name"]),
                    Cell(piece(document, number)),
                    Cell(f"{count:,}", count),
                    Cell(str(expert), expert),
                    Cell(percent(share), share),
                    Cell(percent(load), load),
                )
            )
    head = ("layer", "token", "seen", "expert", "share of it", "the expert's share of all")
    caption = (
        "The expert that gets most of each; those seen ten times or more, the commonest first."
    )
    return Table(
        "tokens", "Frequent tokens and their experts", caption, head, tuple(rows[:_MOST_ROWS])
    )


def _number(value: float | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(form.format(value), value)


def _how(document: Mapping[str, Any]) -> list[str]:
    loss, model = document["loss"], document["model"]
    items = [
        "Everything here was measured with the text above, whose first rows are shown; rows are "
        "routed in evaluation's groups"
        + (
            f" with its capacity, {model['eval_capacity_factor']:g} times an even share."
            if model["drops"]
            else ", and nothing is dropped."
        ),
        f"“Without it”: the loss of {loss['examples']:,} rows, the expert's last matrix at zero, "
        "so that its tokens pass by the residual; the router still chooses it. Of experts in "
        f"attention, query, key and value are zero. {loss['experts_taken_out']} were taken out.",
        "Tokens that go to the same expert are counted in pairs drawn without replacement, so a "
        "rare token looks no more specialised than it is.",
        "A gate is the router's probability of the expert, by which its answer is multiplied; the "
        "runner-up is the likeliest expert that was not chosen.",
    ]
    if not document["layers"]:
        items = items[:1]
    return [
        "<h2>How this was measured</h2>",
        "<ul>",
        *(f"<li>{text(i)}</li>" for i in items),
        "</ul>",
    ]
