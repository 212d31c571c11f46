"""The embedded corpora: documentation and source code of the Python installation that runs switchx.

Files of the standard library and of the packages switchx depends on become documents, one a file;
documents become train and validation text and a SentencePiece vocabulary. The result depends on
the installation alone and is kept in a folder named after its fingerprint.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from switchx import storage
from switchx.data.tasks import vocabulary_training
from switchx.data.tasks.recipes import DOCS, Recipe
from switchx.errors import UserError

TRAIN_SHARDS = 16
VALIDATION_PERCENT = 5
MIN_DOCUMENT_CHARS = 200
VOCABULARY_SAMPLE_BYTES = 3_000_000
_SKIPPED_FOLDERS = frozenset(
    ("test", "tests", "testing", "_tests", "__pycache__", "site-packages", "dist-packages")
)
_WORDS_PER_SENTENCE = 100  # SentencePiece ignores sentences beyond 4,192 bytes


@dataclasses.dataclass(frozen=True)
class Installation:
    """Where the files of a Python installation lie."""

    stdlib: Path
    site_packages: Path

    @classmethod
    def running(cls) -> "Installation":
        """The installation of this interpreter."""
        paths = sysconfig.get_paths()
        return cls(Path(paths["stdlib"]), Path(paths["purelib"]))

    def fingerprint(self, recipe: Recipe = DOCS) -> str:
        """Changes with the Python version, the packages' versions and the recipe's."""
        wanted = {*recipe.packages.values(), "sentencepiece"}
        versions = sorted(
            entry.name.lower()
            for entry in self.site_packages.iterdir()
            if entry.suffix in (".dist-info", ".egg-info")
            and entry.name.split("-")[0].lower() in wanted
        )
        identity = [recipe.version, platform.python_version(), versions]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def files(self, recipe: Recipe = DOCS) -> list[tuple[str, Path]]:
        """Name (relative, with forward slashes) and path of each file to read, by name."""
        roots = [("stdlib", self.stdlib)]
        roots += [(package, self.site_packages / package) for package in recipe.packages]
        return sorted(
            (f"{prefix}/{path.relative_to(root).as_posix()}", path)
            for prefix, root in roots
            for path in _python_files(root)
        )


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A finished corpus: text files with one document a line, and a SentencePiece model."""

    folder: Path

    @property
    def train_glob(self) -> str:
        return str(self.folder / "train-*.txt")

    @property
    def validation_glob(self) -> str:
        return str(self.folder / "validation-*.txt")

    @property
    def vocabulary_path(self) -> Path:
        return self.folder / "sentencepiece.model"


def locate(cache: Path, installation: Installation | None = None, recipe: Recipe = DOCS) -> Corpus:
    """Where a corpus of an installation is, or will be."""
    installation = installation or Installation.running()
    return Corpus(cache / recipe.name / installation.fingerprint(recipe))


def ensure(cache: Path, installation: Installation | None = None, recipe: Recipe = DOCS) -> Corpus:
    """Returns a corpus of an installation, built first where the cache has none.

    Raises:
      UserError: the cache folder cannot be written, or the installation has no source files.
    """
    installation = installation or Installation.running()
    corpus = locate(cache, installation, recipe)
    if not corpus.folder.is_dir():
        _build_and_publish(installation, corpus.folder, recipe)
    return corpus


def _build_and_publish(installation: Installation, folder: Path, recipe: Recipe) -> None:
    """Builds the folder, whole or not at all: several processes may do so at once."""
    print(
        f"switchx: building the {recipe.name} corpus (once) ...",
        file=sys.stderr,
        end=" ",
        flush=True,
    )
    start = time.monotonic()
    try:
        with storage.new_directory(folder, "CACHE_DIR", "facts.json") as built:
            facts = build(installation, built, recipe)
    except BaseException as error:
        print(file=sys.stderr)  # what is said of it begins a line of its own
        if isinstance(error, UserError) and folder.is_dir():
            return  # another process was first, with the same files
        raise
    print(
        f"{facts['documents']:,} documents, {facts['bytes'] / 1e6:.1f} MB, "
        f"{facts['pieces']:,} pieces in {time.monotonic() - start:.0f} s: {folder}",
        file=sys.stderr,
    )


def build(installation: Installation, folder: Path, recipe: Recipe = DOCS) -> dict[str, int]:
    """Writes a corpus of an installation into an empty folder; returns its counts."""
    documents = documents_of(installation.files(recipe), recipe)
    train = [document for document in documents if not is_validation(document[0])]
    validation = [document for document in documents if is_validation(document[0])]
    if not train or not validation:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME {recipe.task!r} found {len(documents)} documented "
            f"files in {str(installation.stdlib)!r} and {str(installation.site_packages)!r}; "
            "name another task, or use a Python whose library comes with its source files."
        )
    for shard in range(TRAIN_SHARDS):
        name = f"train-{shard:05d}-of-{TRAIN_SHARDS:05d}.txt"
        _write_lines(folder / name, (text for _, text in train[shard::TRAIN_SHARDS]))
    _write_lines(folder / "validation-00000-of-00001.txt", (text for _, text in validation))
    texts = (text for _, text in train)
    facts = {
        "documents": len(documents),
        "validation_documents": len(validation),
        "bytes": sum(len(text.encode()) for _, text in documents),
        "pieces": train_vocabulary(texts, folder / "sentencepiece.model", recipe.pieces),
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


def documents_of(files: Sequence[tuple[str, Path]], recipe: Recipe = DOCS) -> list[tuple[str, str]]:
    """Returns (name, text) of each file with enough text, in an order like random.

    A text met before, in the order of the names, is left out: none is in the corpus twice, so
    none is in both splits.
    """
    seen: set[bytes] = set()
    documents = []
    found = _read_texts([str(path) for _, path in files], recipe.reader)
    for (name, _), texts in zip(files, found, strict=True):
        new = []
        for text in texts:
            key = hashlib.sha256(text.lower().encode()).digest()
            if key not in seen:
                seen.add(key)
                new.append(text)
        joined = " ".join(new)
        if len(joined) >= MIN_DOCUMENT_CHARS:
            documents.append((name, joined))
    documents.sort(key=lambda document: _hash(document[0]))
    return _up_to(recipe.max_bytes, documents)


def is_validation(name: str) -> bool:
    """Whether a document belongs to the validation split: a matter of its name alone."""
    return _hash("split:" + name) % 100 < VALIDATION_PERCENT


def train_vocabulary(texts: Iterable[str], path: Path, pieces: int) -> int:
    """Trains a SentencePiece model with T5's special ids; returns its number of pieces."""
    import sentencepiece

    model = vocabulary_training.train(_sentences(texts), pieces, hard_limit=False)
    path.write_bytes(model)
    return int(sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size())


def _sentences(texts: Iterable[str]) -> Iterable[str]:
    left = VOCABULARY_SAMPLE_BYTES
    for text in texts:
        words = text.split(" ")
        for start in range(0, len(words), _WORDS_PER_SENTENCE):
            yield " ".join(words[start : start + _WORDS_PER_SENTENCE])
        left -= len(text.encode())
        if left < 0:
            return


def _read_texts(paths: Sequence[str], reader: str) -> list[list[str]]:
    """The texts of each file, read by processes that import nothing of ours."""
    processes = min(os.cpu_count() or 1, 8)
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        parts = pool.map(lambda i: _read_part(paths[i::processes], reader), range(processes))
        found: list[list[str]] = [[] for _ in paths]
        for i, part in enumerate(parts):
            found[i::processes] = part
    return found


def _read_part(paths: Sequence[str], reader: str) -> list[list[str]]:
    # Isolated (-I), by file name: whatever lies in the working folder can not be imported by it.
    command = [sys.executable, "-I", "-X", "utf8", reader]
    listing = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(command, input=listing.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _python_files(root: Path) -> Iterable[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
        for name in names:
            is_test = name.startswith("test_") or name.endswith(("_test.py", "_tests.py"))
            if name.endswith(".py") and not is_test and "\n" not in folder + name:
                yield Path(folder) / name


def _up_to(limit: int, documents: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    kept = []
    for name, text in documents:
        limit -= len(text.encode())
        if limit < 0:
            break
        kept.append((name, text))
    return kept


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
