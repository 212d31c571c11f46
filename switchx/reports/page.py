"""A report's page: one file of HTML that needs nothing else, with figures that answer the mouse.

The document lies in it as report.json has it, what rests on a clock apart from the rest; page.js
draws the figures from it, and tables are there without any script.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from switchx.reports.html import figure_of, table_of, text, whole_page
from switchx.reports.tables import tables

_FIRST = ("differences", "equal-steps")  # of a comparison: before any figure
_LOSSES = {"validation_loss": "the validation loss", "train_loss": "the loss of training batches"}


def page(document: Mapping[str, Any]) -> str:
    """The HTML of a report."""
    clock = document["time"]
    rest = {name: value for name, value in document.items() if name != "time"}
    return whole_page(
        document["title"],
        _body(document, clock),
        {"report": rest, "time": clock},
        ["page.css"],
        ["page.js"],
    )


def _body(document: Mapping[str, Any], clock: Mapping[str, Any]) -> list[str]:
    made = tables(document)
    drawn = document["figures"]
    experts = [figure for figure in drawn if figure["id"].startswith("experts-")]
    return [
        f"<h1>{text(document['title'])}</h1>",
        f'<p class="soft">{text(_what(document))}</p>',
        *_how_many_are_left_out(document),
        "<noscript><p>The figures are drawn by this page's own script. Their pictures lie beside "
        "it as PNG.</p></noscript>",
        *[part for table in made if table.id in _FIRST for part in table_of(table)],
        '<div id="legend" role="group" aria-label="curves to show"></div>',
        *[part for figure in drawn if figure not in experts for part in figure_of(figure)],
        *[part for figure in clock["figures"] for part in figure_of(figure)],
        *(["<h2>The experts over training</h2>", '<div class="two">'] if experts else []),
        *[part for figure in experts for part in figure_of(figure, 3)],
        *(["</div>"] if experts else []),
        *_laws(document),
        *[part for table in made if table.id not in _FIRST for part in table_of(table)],
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


def _laws(document: Mapping[str, Any]) -> list[str]:
    """Each law among its points beside what it leaves."""
    if not document["laws"]:
        return []
    parts = ["<h2>Laws of scale</h2>"]
    for law in document["laws"]:
        parts += [
            '<div class="two">',
            *[p for f in law["figures"] for p in figure_of(f, 3)],
            "</div>",
        ]
    return parts


def _how_many_are_left_out(document: Mapping[str, Any]) -> list[str]:
    runs = len([one for one in document["left_out"] if one["is_run"]])
    if not runs:
        return []
    said = "1 run is" if runs == 1 else f"{runs} runs are"
    return [f'<p><a href="#left-out">{said} left out</a>: not finished, or not to be read.</p>']


def _left_out(left_out: Sequence[Mapping[str, str]]) -> list[str]:
    if not left_out:
        return []
    items = [f"<li>{text(one['name'])}: {text(one['why'])}.</li>" for one in left_out]
    return ["<h2>What is left out, and why</h2>", '<ul id="left-out">', *items, "</ul>"]
