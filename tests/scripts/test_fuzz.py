"""The fuzzer finds what a parser lets through, and every parser of ours stands some hundreds."""

import pytest
from fuzz import Parser, fuzz, parsers

from switchx.errors import UserError


@pytest.fixture(scope="module")
def all_parsers(tmp_path_factory):
    return parsers(tmp_path_factory.mktemp("fuzz"))


def test_every_parser_refuses_in_its_own_words(all_parsers):
    for name, parser in all_parsers.items():
        for valid in parser.valid:
            parser.parse(valid)
        result = fuzz(parser, seconds=10, seed=1, most=100)
        assert not result.findings, f"{name}: {result.findings}"


def careless(content: bytes) -> int:
    if not content.startswith(b"a"):
        raise UserError("it must begin with a")
    return content[3]


def test_it_finds_another_error_than_the_promised():
    result = fuzz(Parser([b"abcd"], careless), seconds=10, seed=0, most=2000)
    ((sentence, content),) = result.findings.items()
    assert sentence.startswith("IndexError in test_fuzz.py")
    assert content.startswith(b"a")
    assert len(content) < 4
    assert 0 < result.accepted < result.inputs


def test_a_seed_gives_the_same_inputs():
    seen: list[list[bytes]] = [[], []]
    for inputs in seen:
        fuzz(Parser([b"some text 123"], inputs.append), seconds=10, seed=7, most=50)
    assert seen[0] == seen[1]
