"""What pages are made of: one file of HTML that needs nothing else, figures and tables in it."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from switchx.reports.tables import Cell, Table

# No request ever leaves the page, whatever a run is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_LONG = 44  # characters of a cell that may be broken into lines


def whole_page(
    title: str,
    body: Sequence[str],
    embedded: Mapping[str, Any],
    styles: Sequence[str],
    scripts: Sequence[str],
) -> str:
    """A page of HTML.

    Args:
      embedded: values that the scripts read, each as JSON in an element of its name.
      styles, scripts: CSS and JavaScript, or the names of files of this package.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{text(title)}</title>",
        *(f"<style>\n{_content(style)}</style>" for style in styles),
        "</head>",
        "<body>",
        *body,
        *(_data(name, value) for name, value in embedded.items()),
        *(f"<script>\n{_content(script)}</script>" for script in scripts),
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def figure_of(figure: Mapping[str, Any], level: int = 2) -> list[str]:
    """The place where page.js draws a figure of a document."""
    name = text(figure["id"])
    return [
        f'<figure id="figure-{name}">',
        f"<h{level}>{text(figure['title'])}</h{level}>",
        '<div class="controls"></div>',
        f'<div class="plot" data-figure="{name}"></div>',
        f"<figcaption>{text(figure['caption'])}</figcaption>",
        "</figure>",
    ]


def table_of(table: Table) -> list[str]:
    """A table that page.js sorts."""
    numbers = table.number_columns()
    heads = "".join(
        f'<th scope="col"{_class(number)}><button type="button">{text(head)}</button></th>'
        for head, number in zip(table.head, numbers, strict=True)
    )
    rows = ["<tr>" + "".join(map(_cell, row, numbers)) + "</tr>" for row in table.rows]
    return [
        f"<h2>{text(table.title)}</h2>",
        f"<p>{text(table.caption)}</p>" if table.caption else "",
        f'<div class="wide"><table class="sortable" id="table-{text(table.id)}">',
        f"<thead><tr>{heads}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]


def _cell(cell: Cell, number: bool) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    kind = _class(number) or (' class="long"' if len(cell.text) > _LONG else "")
    return f"<td{kind}{value}>{text(cell.text)}</td>"


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _data(name: str, value: Any) -> str:
    """JSON that no name in it can end: a script's text ends at the first </script."""
    said = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = said.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def text(value: Any) -> str:
    """Text as HTML shows it, whatever it holds."""
    return escape(str(value), quote=True)


def _content(name_or_text: str) -> str:
    if not name_or_text.endswith((".css", ".js")):
        return name_or_text
    return resources.files("switchx.reports").joinpath(name_or_text).read_text(encoding="utf-8")
