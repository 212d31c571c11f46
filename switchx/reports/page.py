"""A report's page: one file of HTML that needs nothing else, with figures that answer the mouse.

The document lies in it as report.json has it, what rests on a clock apart from the rest; page.js
draws the figures from it, and tables are there without any script.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from switchx.reports.tables import Cell, Table, tables

# No request ever leaves the page, whatever a run is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_FIRST = ("differences", "equal-steps")  # of a comparison: before any figure
_LONG = 44  # characters of a cell that may be broken into lines
_LOSSES = {"validation_loss": "the validation loss", "train_loss": "the loss of training batches"}


def page(document: Mapping[str, Any]) -> str:
    """The HTML of a report."""
    clock = document["time"]
    rest = {name: value for name, value in document.items() if name != "time"}
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{_text(document['title'])}</title>",
        f"<style>\n{_resource('page.css')}</style>",
        "</head>",
        "<body>",
        *_body(document, clock),
        _data("report", rest),
        _data("time", clock),
        f"<script>\n{_resource('page.js')}</script>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def _body(document: Mapping[str, Any], clock: Mapping[str, Any]) -> list[str]:
    made = tables(document)
    drawn = document["figures"]
    experts = [figure for figure in drawn if figure["id"].startswith("experts-")]
    return [
        f"<h1>{_text(document['title'])}</h1>",
        f'<p class="soft">{_text(_what(document))}</p>',
        *_how_many_are_left_out(document),
        "<noscript><p>The figures are drawn by this page's own script. Their pictures lie beside "
        "it as PNG.</p></noscript>",
        *[part for table in made if table.id in _FIRST for part in _table(table)],
        '<div id="legend" role="group" aria-label="curves to show"></div>',
        *[part for figure in drawn if figure not in experts for part in _figure(figure)],
        *[part for figure in clock["figures"] for part in _figure(figure)],
        *(["<h2>The experts over training</h2>", '<div class="two">'] if experts else []),
        *[part for figure in experts for part in _figure(figure, 3)],
        *(["</div>"] if experts else []),
        *_laws(document),
        *[part for table in made if table.id not in _FIRST for part in _table(table)],
        *_left_out([*document["left_out"], *clock["left_out"]]),
    ]


def _what(document: Mapping[str, Any]) -> str:
    runs, groups = len(document["runs"]), len(document["groups"])
    alike = f" of {groups} configurations" if groups < runs else ""
    return (
        f"{runs} runs{alike}; loss is {_LOSSES[document['loss']]} in nats per token, at the end of "
        "training where nothing else is said. Choose in the legend what is shown; point at a curve "
        "for its run and values."
    )


def _figure(figure: Mapping[str, Any], level: int = 2) -> list[str]:
    name = _text(figure["id"])
    return [
        f'<figure id="figure-{name}">',
        f"<h{level}>{_text(figure['title'])}</h{level}>",
        '<div class="controls"></div>',
        f'<div class="plot" data-figure="{name}"></div>',
        f"<figcaption>{_text(figure['caption'])}</figcaption>",
        "</figure>",
    ]


def _laws(document: Mapping[str, Any]) -> list[str]:
    """Each law among its points beside what it leaves."""
    if not document["laws"]:
        return []
    parts = ["<h2>Laws of scale</h2>"]
    for law in document["laws"]:
        parts += [
            '<div class="two">',
            *[p for f in law["figures"] for p in _figure(f, 3)],
            "</div>",
        ]
    return parts


def _table(table: Table) -> list[str]:
    numbers = table.number_columns()
    heads = "".join(
        f'<th scope="col"{_class(number)}><button type="button">{_text(head)}</button></th>'
        for head, number in zip(table.head, numbers, strict=True)
    )
    rows = ["<tr>" + "".join(map(_cell, row, numbers)) + "</tr>" for row in table.rows]
    return [
        f"<h2>{_text(table.title)}</h2>",
        f"<p>{_text(table.caption)}</p>" if table.caption else "",
        f'<div class="wide"><table class="sortable" id="table-{_text(table.id)}">',
        f"<thead><tr>{heads}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]


def _cell(cell: Cell, number: bool) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    kind = _class(number) or (' class="long"' if len(cell.text) > _LONG else "")
    return f"<td{kind}{value}>{_text(cell.text)}</td>"


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _how_many_are_left_out(document: Mapping[str, Any]) -> list[str]:
    runs = len([one for one in document["left_out"] if one["is_run"]])
    if not runs:
        return []
    said = "1 run is" if runs == 1 else f"{runs} runs are"
    return [f'<p><a href="#left-out">{said} left out</a>: not finished, or not to be read.</p>']


def _left_out(left_out: Sequence[Mapping[str, str]]) -> list[str]:
    if not left_out:
        return []
    items = [f"<li>{_text(one['name'])}: {_text(one['why'])}.</li>" for one in left_out]
    return ["<h2>What is left out, and why</h2>", '<ul id="left-out">', *items, "</ul>"]


def _data(name: str, value: Any) -> str:
    """JSON that no name in it can end: a script's text ends at the first </script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def _text(text: Any) -> str:
    return escape(str(text), quote=True)


def _resource(name: str) -> str:
    return resources.files("switchx.reports").joinpath(name).read_text(encoding="utf-8")
