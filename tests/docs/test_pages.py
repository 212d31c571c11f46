"""What the pages name is there: files, links, settings; what they say of errors is said."""

import ast
import re

import pytest

from tests.docs.pages import PAGES, ROOT

NAMED = r"(?:\.ci|configs|docs|requirements|scripts|switchx|tests)/[\w./*-]*[\w*/]"
WITH_NAMES = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "Makefile",
    *sorted(ROOT.glob("configs/**/*.gin")),
]


@pytest.mark.parametrize("page", WITH_NAMES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    text = page.read_text()
    for name in re.findall(rf"(?<![\w/.:-])({NAMED})", text):
        plain = name.split("::")[0]
        assert ".." in plain or list(ROOT.glob(plain)), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not re.match(r"https?:", target):
            file, _, heading = target.partition("#")
            path = page.parent / file if file else page
            assert path.exists(), f"{page.name} links to {target}"
            if heading:
                assert heading in headings(path), f"{page.name} links to {target}"


def headings(path):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def rows(page):
    """The cells of the table rows of a page."""
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def said(path):
    """Every string of a module, an f-string's values as {}."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_errors_are_those_that_are_said():
    """Each sentence of docs/errors.md, its values left out as `…`, is one of the sources'."""
    sources = [text for path in ROOT.glob("switchx/**/*.py") for text in said(path)]
    sentences = [row[0].strip("`") for row in rows("errors.md") if row[0].startswith("`")]
    assert len(sentences) > 20
    for sentence in sentences:
        pieces = [piece.strip() for piece in sentence.split("…") if len(piece.strip()) > 3]
        assert any(all(piece in text for piece in pieces) for text in sources), sentence


def test_what_t5x_users_are_told_to_use_exists():
    from switchx.settings.configurables import PARAMETERS
    from switchx.settings.gin_files import Reader
    from switchx.settings.gin_values import BASE

    macros = {binding.target for binding in Reader().read_file(BASE) if binding.is_macro}
    named = [row[1] for row in rows("from_t5x.md")]
    assert len(named) > 20
    for cell in named:
        for name in re.findall(r"`([A-Z][A-Z0-9_]{3,})[`=]", cell):
            assert name in macros, name
        for name in re.findall(r"`(\w+Config\.\w+)[`=]", cell):
            assert name in PARAMETERS, name


def test_the_tables_of_t5x_have_all_that_is_read():
    from switchx.settings.t5x.table import TABLE

    told = " ".join(row[1] for row in rows("from_t5x.md"))
    for name, found in TABLE.items():
        for parameter, row in found.items():
            said = row if parameter == "@" else {row.ours} - {None}
            for ours in set(said) - {"ModelConfig.switch"}:
                assert re.search(rf"`{ours}[`=]", told), f"{name}.{parameter}: {ours}"
