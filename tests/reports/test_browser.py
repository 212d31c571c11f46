"""The page as a reader uses it, in headless Chromium."""

from pathlib import Path

from tests.reports import browser

pytestmark = browser.needed

HERE = Path(__file__).parent


def test_a_reader_can_do_all_that_the_page_promises(sweep, tmp_path):
    script = (HERE / "reader.js").read_text()
    found = browser.run(sweep.page, script, tmp_path)
    document = sweep.document
    figures = [*document["figures"], *document["time"]["figures"]]
    assert sorted(found["plots"]) == sorted([figure["id"], 1] for figure in figures)
    names = ["dense (2 seeds)", "4 experts (2 seeds)", "16 experts (2 seeds)"]
    assert found["keys"] == [[name, "true", 0] for name in names]
    assert found["before"] == [6, 4]
    assert found["without_dense"] == [4, 4, "false"]
    assert (found["none"], found["all"]) == (0, 6)
    first = document["runs"][0]
    last_loss = f"{first['curves']['loss']['value'][-1]:.5g}"
    assert found["hover"][0] is False
    assert found["hover"][1] == [
        first["name"],
        "step: 1000",
        f"validation loss (nats per token): {float(last_loss):g}",
    ]
    assert found["left"] is True
    second = document["runs"][1]
    assert found["walked"][0] == second["name"]
    assert found["walked"][1] == f"step: {second['curves']['loss']['step'][1]}"
    assert found["buttons"][:3] == ["step", "tokens", "training FLOPs"]
    assert found["tokens"][0] == "tokens"
    assert found["pressed"] == ["false", "true", "false", "true", "false"]
    assert found["up"] == sorted(found["up"], key=float)
    assert found["down"] == found["up"][::-1]
    assert found["sorted"] == "descending"
    assert found["requests"] == 0


def test_the_page_fits_a_telephone_and_the_dark(sweep, tmp_path):
    script = (HERE / "look.js").read_text()
    for dark in (False, True):
        found = browser.run(sweep.page, script, tmp_path, width=400, dark=dark)
        assert found["beyond"] <= 0
        assert max(found["plots"]) <= found["width"]
        text, back = found["text"]
        assert (text - back > 0.6) if dark else (back - text > 0.6)
        assert all(abs(curve - back) > 0.2 for curve in found["curves"])
        assert found["size"] >= 11
