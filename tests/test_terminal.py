"""Tables, and how far long work is: bars on a terminal, lines where there is news elsewhere."""

import errno
import io

import pytest

from switchx.terminal import Progress, clock, side_by_side, table, tracked


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_table():
    rows = [
        ("task", "records", "loss", "unknown"),
        ("a", 12345, 0.25, "0.1%"),
        ("bcdef", 1, 2.0, "12%"),
    ]
    assert table(rows) == [
        "task   records    loss  unknown",
        "a       12,345  0.2500     0.1%",
        "bcdef        1  2.0000      12%",
    ]


def test_a_number_that_is_missing_leaves_its_column_right():
    rows = [("tried", "ms", "outcome"), ("a", 12.5, "fits"), ("b", "", "does not compile")]
    assert table(rows) == [
        "tried       ms  outcome",
        "a      12.5000  fits",
        "b               does not compile",
    ]
    assert table([("one", 1), ("thirteen", 13)]) == ["one        1", "thirteen  13"]


def test_pairs_side_by_side():
    assert side_by_side({"a": 1.0, "bcd": 2.0, "e": 3.0}, width=30) == [
        "a    1.0000    bcd  2.0000",
        "e    3.0000",
    ]
    assert side_by_side({}) == []


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with Progress(1000, "step", stream=stream) as progress:
        progress.update(99)
        progress.update(100, ["loss 3.2500", "12,346 tokens/s"], rate=2.0)
        progress.message("saved")
        progress.total = None
        progress.update(1001, ["loss 3"], rate=2.0)
    lines = ["step  100/1000  loss 3.2500  12,346 tokens/s  eta 7:30", "saved", "step 1001  loss 3"]
    assert stream.getvalue().splitlines() == lines


def test_a_bar_on_a_terminal():
    stream = Terminal()
    with Progress(1000, "step", done=500, stream=stream) as progress:
        progress.update(749, ["loss 3.25"])
        progress.advance()
        progress.message("saved")
    assert "750/1000" in stream.getvalue()
    assert "loss 3.25" in stream.getvalue()
    assert "saved\n" in stream.getvalue()


def test_items_are_counted_for_a_terminal_alone(monkeypatch):
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        assert list(tracked("abc", 3, "lines")) == ["a", "b", "c"]
        assert ("3/3" in stream.getvalue()) is stream.isatty()


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_reader_that_is_gone_ends_nothing(kind):
    class Gone(kind):
        def write(self, _):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    progress = Progress(10, "step", stream=io.StringIO() if kind is io.StringIO else kind())
    assert not progress.gone
    progress._stream = Gone()
    progress.message("a line")
    progress.update(1, ["news"])
    progress.close()
    assert progress.gone


def test_nothing_is_shown_where_another_host_speaks(capsys):
    progress = Progress(10, "step", shown=False)
    progress.update(1, ["news"])
    progress.message("a line")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_clock():
    assert [clock(s) for s in (0, 59.6, 187, 93787)] == ["0:00", "1:00", "3:07", "26:03:07"]
