"""`switchx inspect` from the command line to what a reader does with the page in a browser."""

import contextlib
import copy
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from switchx import data, storage
from switchx.api import Run
from switchx.cli.main import main
from switchx.data import texts
from switchx.evaluation.inspection.kinds import KINDS
from switchx.evaluation.inspection.layers import of_layer
from switchx.evaluation.inspection.pieces import Pieces
from switchx.evaluation.inspection.seen import Seen
from switchx.inference.routing import Choices
from switchx.reports import inspection_page
from switchx.reports import inspection_words as words
from tests.helpers import switch_config
from tests.reports import browser

pytestmark = pytest.mark.usefixtures("one_device")

HOSTILE = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspection")
    (folder / "numbers.txt").write_text("line 3 says that 21 is seven times 3, " * 12)
    (folder / "hostile.txt").write_text(f"{HOSTILE} and so on & so forth. " * 4)
    return folder


@pytest.fixture(scope="module")
def inspected(trained, folder):
    """What the command ended with, printed and wrote, of two texts."""
    out, err = io.StringIO(), io.StringIO()
    places = [f"--output={folder}/page.html", f"--json={folder}/numbers.json"]
    given = [f"--text={folder}/{name}.txt" for name in ("numbers", "hostile")]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["inspect", f"--model_dir={trained.run}", *given, *places])
    assert status == 0, err.getvalue()
    numbers = json.loads((folder / "numbers.json").read_text())
    return numbers, (folder / "page.html").read_text(), out.getvalue()


def test_the_numbers_hold_together(inspected, trained, folder):
    numbers, page, out = inspected
    assert out.splitlines() == numbers["answer"]
    assert numbers["step"] == 4
    assert [one["step"] for one in numbers["saturation"]] == [2]
    assert [layer["name"] for layer in numbers["layers"]] == ["encoder 0", "decoder 0"]
    assert [one["name"] for one in numbers["sources"]] == ["numbers.txt", "hostile.txt"]
    assert len(page.encode()) < 5e6
    for layer in numbers["layers"]:
        tokens = sum(source["tokens"][layer["stack"]] for source in numbers["sources"])
        assert sum(layer["load"]) == pytest.approx(1, abs=1e-4)
        assert sum(one["tokens"] for one in layer["experts"]) == tokens
        assert all(one["nats"] is not None for one in layer["experts"])
        (flow,) = [flow for flow in numbers["flows"] if flow["to"] == layer["name"]]
        for one in layer["experts"]:
            assert one["tokens"] == sum(n for _, e, n in flow["flows"] if e == one["expert"])
    # Filled up again from its blanks, the text is the one that was given.
    run = Run(trained.run)
    text = data.read_text(folder / "hostile.txt", "--text")
    (batch,) = data.text_batches(text, run.config.data)
    from switchx.data.examples import examples_of, filled_in

    whole = [filled_in(*example, run.vocabulary) for example in examples_of(batch)]
    said = "".join(run.vocabulary.decode(tokens) for tokens in whole)
    assert said == (folder / "hostile.txt").read_text()


@browser.needed
def test_a_reader_finds_each_expert_and_no_text_is_run(inspected, tmp_path):
    numbers, page, _ = inspected
    script = """
      const click = (node) => node.dispatchEvent(new MouseEvent('click', {bubbles: true}));
      const all = (selector) => [...document.querySelectorAll(selector)];
      const out = {answer: all('.answer p').map((p) => p.textContent), cards: all('.card').length};
      out.rows = all('#text p').map((p) => p.textContent);
      out.colours = new Set(all('#text .t').map((t) => getComputedStyle(t).backgroundColor)).size;
      const token = all('#text .t')[5];
      token.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: 9, clientY: 9}));
      out.tip = [...document.querySelector('.tip.fixed').children].map((c) => c.textContent);
      const right = new KeyboardEvent('keydown', {key: 'ArrowRight'});
      document.getElementById('text').dispatchEvent(right);
      out.walked = document.querySelector('.tip.fixed').firstChild.textContent;
      click(all('#choose .swatch')[2]);
      out.lit = all('#text .t:not(.off)').map((t) => t.className.match(/e\\d+/)[0]);
      click(all('#choose button')[1]);
      out.decoder = all('#text p')[0].textContent;
      out.bands = all('#flows .band').length;
      out.plots = all('.plot').map((p) => p.querySelectorAll('.series.curve').length);
      out.strips = all('#sources .strip').length;
      out.requests = performance.getEntriesByType('resource').length;
      out.title = document.title;
      out.images = document.images.length;
      return out;"""
    found = browser.run(page, script, tmp_path)
    assert found["answer"] == numbers["answer"]
    assert found["cards"] == 8
    shown = [[numbers["pieces"][n] for n in row["encoder"]["pieces"]] for row in numbers["text"]]
    assert [row.count("⟨") for row in found["rows"]] == [
        sum(piece.startswith("<extra_id") for piece in row) for row in shown
    ]
    assert 1 < found["colours"] <= 9  # one is of dropped tokens
    first = numbers["text"][0]["encoder"]
    of = first["layers"][0]
    (best, second), (gate, less) = of["likely"][5], of["prob"][5]
    assert found["tip"][-2:] == [
        f"gate: expert {best}, {gate:.2f}",
        f"runner-up: expert {second}, {less:.2f}",
    ]
    assert found["walked"] == f"“{shown[0][6]}”".replace(" ", "·")
    assert set(found["lit"]) <= {"e2"}
    assert found["decoder"].startswith("<start>⟨0⟩")
    assert found["bands"] == sum(len(flow["flows"]) for flow in numbers["flows"])
    assert found["plots"] == [1, 2, 2, 2, 8, 8]
    assert found["strips"] == 4
    assert (found["requests"], found["images"]) == (0, 0)
    assert found["title"] == "What the experts of quickstart do"


@browser.needed
def test_a_page_of_hostile_pieces_and_of_a_dense_model(inspected, tmp_path):
    """As a vocabulary with such a piece would have it, in every place where a piece is shown."""
    numbers = copy.deepcopy(inspected[0])
    dense = copy.deepcopy(numbers)
    numbers["pieces"] = [f"</script>{HOSTILE}{n}" for n in range(len(numbers["pieces"]))]
    numbers["sources"][0]["name"] = numbers["name"] = HOSTILE
    script = """
      for (const details of document.querySelectorAll('details')) details.open = true;
      const text = document.body.textContent;
      return [document.title, document.images.length, text.includes("onerror")];"""
    found = browser.run(inspection_page.page(numbers), script, tmp_path)
    assert found == [f"What the experts of {HOSTILE} do", 0, True]
    dense |= {"layers": [], "flows": [], "saturation": [], "answer": ["It has no experts."]}
    for row in dense["text"]:
        row["encoder"]["layers"] = row["decoder"]["layers"] = []
    script = """
      const title = document.querySelector('h1').textContent;
      const tokens = document.querySelectorAll('#text .nats').length;
      return [title, tokens, document.querySelectorAll('.plot svg').length,
              document.querySelectorAll('h2').length];"""
    tokens = sum(len(row["decoder"]["writes"]) for row in dense["text"])
    found = browser.run(inspection_page.page(dense), script, tmp_path)
    assert found == ["quickstart has no experts", tokens, 1, 3]


@browser.needed
def test_the_page_fits_a_telephone_and_the_dark(inspected, tmp_path):
    script = """
      const shade = (c) => c.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 765;
      const style = getComputedStyle(document.body);
      const card = document.querySelector('.card header p');
      return [document.documentElement.scrollWidth - innerWidth,
              shade(getComputedStyle(card).color) - shade(style.backgroundColor)];"""
    for dark in (False, True):
        beyond, contrast = browser.run(inspected[1], script, tmp_path, width=400, dark=dark)
        assert beyond <= 0
        assert (contrast if dark else -contrast) > 0.35


@pytest.mark.parametrize("chosen_by", ["lot", "token"])
def test_words_say_which_expert_does_what_or_that_none_does(chosen_by):
    """Of tokens whose experts are drawn by lot, and of those where each token has its own."""
    rng = np.random.default_rng(0)
    token_T = np.minimum(rng.geometric(0.12, 8000) + 2, 90).astype(np.int32)  # few are frequent
    expert_T = rng.integers(0, 4, 8000) if chosen_by == "lot" else token_T % 4
    ones_NT1 = np.ones((1, 8000, 1), np.float32)
    pair_NTK = np.stack([expert_T, (expert_T + 1) % 4], axis=-1)[None]
    choices = Choices(
        expert_T[None, :, None], ones_NT1, ones_NT1 > 0, pair_NTK, ones_NT1 * [[0.9, 0.1]], ones_NT1
    )
    zeros_T = np.zeros(8000, int)
    seen = Seen(
        "encoder", ["encoder 0"], token_T, np.roll(token_T, -1), zeros_T, zeros_T, zeros_T, zeros_T,
        choices, False,
    )  # fmt: skip
    vocabulary = SimpleNamespace(piece=lambda token: f" w{token}" if token % 3 else f"({token}")
    pieces = Pieces(vocabulary)
    layer = of_layer(seen, 0, pieces, ["a"], switch_config())
    for one in layer["experts"]:
        one["nats"] = 0.01 * one["expert"]
    numbers = {
        "layers": [layer],
        "sources": [{"name": "a", "tokens": {"encoder": 8000}}],
        "kinds": list(KINDS),
        "kinds_of_tokens": {
            "encoder": np.bincount(pieces.kinds_of(token_T), minlength=len(KINDS)) / 8000
        },
        "pieces": pieces.texts,
        "loss": {"nats": 2.0},
    }
    said, sentences = words.answer(numbers), words.of_layer(layer, numbers["sources"])
    assert said[-1].startswith("The one that is missed most is expert 3 of encoder 0")
    if chosen_by == "lot":
        assert said[0] == "No: none of the 4 experts has a job that could be named."
        assert sentences[0].startswith("Nothing decides")
    else:
        assert said[0] == "All 4 experts have a job that can be named, below."
        assert said[1].startswith("The clearest: expert ")
        assert sentences[0].startswith("The token decides: two occurrences of the same token go to")
        assert "in 100 % of cases" in sentences[0]


def test_a_long_text_is_sampled_and_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MOST_BYTES", 64 * 10)
    written = "".join(f"{n:05}é\n" for n in range(1000))
    (tmp_path / "long.txt").write_text(written)
    text = texts.read_text(tmp_path / "long.txt", "--text")
    assert (len(text.parts), text.bytes_in_file) == (64, len(written.encode()))
    assert 64 * 6 < text.bytes_read <= 64 * 10
    assert all(part in written for part in text.parts)
    assert text.parts[0].startswith("00000")
    assert text.parts[-1].endswith("00999é\n")
    starts = [written.index(part) for part in text.parts]
    assert starts == sorted(starts)
    (tmp_path / "long.txt").write_bytes(b"a\xff" * 1000)
    with pytest.raises(data.texts.UserError, match="which is not UTF-8: give a text file"):
        texts.read_text(tmp_path / "long.txt", "--text")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--text={}/empty.txt"], "empty.txt' holds no text: give a file with some."),
        (["--text={}/latin.txt"], "latin.txt', which is not UTF-8: give a text file."),
        (["--text={}/none.txt"], "none.txt', which cannot be read"),
        (["--text={}/numbers.txt", "--output={}/numbers.txt"], "numbers.txt' exists already"),
        (["--text={}/numbers.txt", "--json={}/none/x.json"], "must be a writable folder."),
        (["--output={}/x", "--json={}/./x"], "/x is the --output too: name another file for one."),
        (["--output={}/x", "--json={}/x"], "/x is the --output too: name another file for one."),
        (
            ["--text={}/numbers.txt", "--earlier=3"],
            "--earlier=3 is no checkpoint before step 4 in MODEL_DIR=",
        ),
    ],
)
def test_a_mistake_gets_one_line(flags, said, folder, trained, capsys, tmp_path):
    (folder / "empty.txt").write_text(" \n\n")
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    output = [] if "--output" in " ".join(flags) else [f"--output={tmp_path}/page.html"]
    given = [flag.format(folder) for flag in flags]
    assert main(["inspect", f"--model_dir={trained.run}", *given, *output]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert not (tmp_path / "page.html").exists()


def test_a_bucket_takes_the_page(inspected, trained, folder, gs, monkeypatch, capsys):
    numbers = {**inspected[0], "model_dir": str(trained.run)}
    monkeypatch.setattr(Run, "inspect", lambda *_: numbers)
    url = f"{gs.folder()}/page.html"
    flags = [f"--text={folder}/numbers.txt", f"--output={url}"]
    assert main(["inspect", f"--model_dir={trained.run}", *flags]) == 0
    assert storage.read_bytes(url, "X").startswith(b"<!doctype html>")
    assert main(["inspect", f"--model_dir={trained.run}", *flags]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("switchx: --output=")
