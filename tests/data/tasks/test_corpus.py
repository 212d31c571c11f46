"""The embedded corpora are a pure function of the installation, and their splits share nothing."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from switchx.data.tasks import corpus, docstrings, recipes, source_code
from switchx.errors import UserError

PROSE = (
    "Sends each token of the batch to the expert with the highest probability, and scales what "
    "comes back by that probability, so that the router receives a gradient as well."
)


def fake_installation(folder: Path, files: int = 60) -> corpus.Installation:
    """A stdlib and a numpy of a few files, every docstring different, one of them shared."""
    stdlib, site = folder / "lib", folder / "lib" / "site-packages"
    for name in ("lib", "lib/tests", "lib/site-packages/numpy", "lib/site-packages/switchx"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (site / "numpy-2.0.dist-info").mkdir(exist_ok=True)
    for i in range(files):
        where = stdlib if i % 2 else site / "numpy"
        (where / f"module{i}.py").write_text(source(f"Module {i}. {PROSE}", f"Does {i}. {PROSE}"))
    (stdlib / "tests" / "hidden.py").write_text(source("A test. " + PROSE, "It tests. " + PROSE))
    (site / "switchx" / "own.py").write_text(source("Our own. " + PROSE, "Ours, too. " + PROSE))
    return corpus.Installation(stdlib, site)


def source(module_doc: str, function_doc: str) -> str:
    return (
        f'"""{module_doc}"""\nraise SystemExit("executed")\n\n'
        f'def f():\n    """{function_doc}\n\n    Shared. {PROSE}\n    """\n\n'
        f'class C:\n    """Shared by all of them. {PROSE}"""\n'
    )


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_same_files_in_every_process(tmp_path):
    fake_installation(tmp_path)
    code = (
        "import sys, pathlib\nfrom switchx.data.tasks import corpus, recipes\n"
        "lib = pathlib.Path(sys.argv[1])\n"
        "i = corpus.Installation(lib, lib / 'site-packages')\n"
        "for recipe in recipes.DOCS, recipes.CODE:\n"
        "    corpus.ensure(pathlib.Path(sys.argv[2]), i, recipe)\n"
    )
    built = []
    for seed in ("1", "2"):
        cache = tmp_path / f"cache{seed}"
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "lib"), str(cache)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        folders = [next((cache / name).iterdir()) for name in ("python_docs", "python_code")]
        built.append([(folder.name, hashes(folder)) for folder in folders])
    assert built[0] == built[1]
    for _, files in built[0]:
        assert len(files) == corpus.TRAIN_SHARDS + 3  # validation, vocabulary, facts


def test_splits_are_disjoint_and_nothing_is_there_twice(tmp_path):
    documents = corpus.documents_of(fake_installation(tmp_path).files())
    assert len(documents) == 60  # no tests, none of our own files
    texts = " ".join(text for _, text in documents)
    assert texts.count("Shared by all of them.") == 1
    assert all(texts.count(f"Module {i}. ") == texts.count(f"Does {i}. ") == 1 for i in range(60))
    validation = [name for name, _ in documents if corpus.is_validation(name)]
    assert 0 < len(validation) < 12


def test_code_is_whole_files_without_what_was_met_before(tmp_path):
    installation = fake_installation(tmp_path)
    stdlib = installation.stdlib
    (stdlib / "z_licensed.py").write_text(
        f"#!/usr/bin/env python\n# Licensed as is.\n\n# So is this.\nLINES = '''{PROSE}'''\n\n\n"
        f"def f():\n    return '{PROSE}'\n\n    # still in f\n"
    )
    (stdlib / "z_copy.py").write_text(f"LIMIT = '{PROSE}'\n\n\nLINES = '''{PROSE}'''\n")
    documents = dict(corpus.documents_of(installation.files(recipes.CODE), recipes.CODE))
    assert len(documents) == 62
    assert documents["stdlib/z_copy.py"] == f"LIMIT = '{PROSE}' LINES = '''{PROSE}'''"
    alone = f"def f(): return '{PROSE}' # still in f"
    assert documents["stdlib/z_licensed.py"] == alone
    texts = " ".join(documents.values())
    assert all(texts.count(f"Module {i}. ") == texts.count(f"Does {i}. ") == 1 for i in range(60))
    assert texts.count("class C:") == 1


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        (f"X = '{PROSE}'\n".encode(), [f"X = '{PROSE}'"]),
        (b"x = 1\n", []),
        (b"TABLE = [\n" + b"  1, 2, 3,\n" * 20 + b"]\n", []),
        (("# x\n名前 = '" + "トークンを専門家に送る。" * 5 + "'\n").encode(), []),
        (f"X = '{PROSE}'\n".encode("utf-16"), []),
        (f"X = '{PROSE}'\n".encode() * 5_000, []),
    ],
)
def test_code_only(tmp_path, source, kept):
    path = tmp_path / "module.py"
    path.write_bytes(source)
    assert source_code.paragraphs_of(str(path)) == kept
    assert source_code.paragraphs_of(str(tmp_path / "absent.py")) == []


def test_split_takes_five_percent():
    taken = sum(corpus.is_validation(f"package/module{i}.py") for i in range(4000))
    assert 160 < taken < 240  # 200, sigma 14


def test_real_corpus(docs_corpus):
    facts = json.loads((docs_corpus.folder / "facts.json").read_text())
    assert facts["bytes"] > 4_000_000
    assert facts["pieces"] == recipes.DOCS.pieces
    train, validation = (
        [line for path in sorted(docs_corpus.folder.glob(f"{split}-*")) for line in path.open()]
        for split in ("train", "validation")
    )
    assert len(train) + len(validation) == facts["documents"]
    assert len(validation) == facts["validation_documents"]
    assert not set(train) & set(validation)
    assert min(map(len, train)) >= corpus.MIN_DOCUMENT_CHARS


def test_two_builders_at_once(tmp_path):
    installation = fake_installation(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: corpus.ensure(tmp_path / "cache", installation), range(2)))
    assert found[0] == found[1]
    assert found[0].vocabulary_path.is_file()
    assert len(list((tmp_path / "cache" / "python_docs").iterdir())) == 1  # no leftovers


def test_a_cached_corpus_is_not_built_again(tmp_path, monkeypatch):
    installation = fake_installation(tmp_path)
    first = corpus.ensure(tmp_path / "cache", installation)
    monkeypatch.setattr(corpus, "build", lambda *_: pytest.fail("built twice"))
    assert corpus.ensure(tmp_path / "cache", installation) == first


def test_fingerprint_follows_versions_that_matter(tmp_path):
    installation = fake_installation(tmp_path, files=2)
    before = installation.fingerprint()
    (installation.site_packages / "unrelated-1.0.dist-info").mkdir()
    assert installation.fingerprint() == before
    (installation.site_packages / "scipy-1.0.dist-info").mkdir()
    assert installation.fingerprint() != before


def test_an_installation_without_documentation(tmp_path):
    with pytest.raises(UserError, match="'python_docs_span_corruption' found 0 documented files"):
        corpus.ensure(tmp_path / "cache", fake_installation(tmp_path, files=0))


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"CACHE_DIR=.*file.* lies below a file"):
        corpus.ensure(tmp_path / "file", fake_installation(tmp_path))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (PROSE, True),
        ("Too short.", False),
        ("0 1 2 3 | 4 5 6 7 | " * 10, False),
        ("トークンを最も確率の高い専門家に送る。" * 5, False),
    ],
)
def test_prose_only(tmp_path, text, kept):
    path = tmp_path / "module.py"
    path.write_text(f'"""{text}"""\n', encoding="utf-8")
    assert docstrings.docstrings_of(str(path)) == ([text] if kept else [])


def test_files_that_do_not_parse(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(f'"""{PROSE}"""\ndef broken(:\n')
    assert docstrings.docstrings_of(str(path)) == []
    assert docstrings.docstrings_of(str(tmp_path / "absent.py")) == []
