"""What the data tests share: the embedded corpus in the normal cache, and ways to make data."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from switchx.data import DataConfig

T5_MODEL = (
    Path(__file__).parents[3] / "shared/data/vocabs/cc_all.32000.100extra/sentencepiece.model"
)


def docs_config(**changes: Any) -> DataConfig:
    """The embedded task at small sizes."""
    values: dict[str, Any] = {
        "mixture_or_task_name": "python_docs_span_corruption",
        "feature_lengths": {"inputs": 64, "targets": 18},
        "batch_size": 4,
        "eval_batches": 3,
    }
    return DataConfig(**{**values, **changes})


def digest(batch: dict[str, np.ndarray]) -> str:
    """One short name for the bits of a batch."""
    joined = b"".join(
        name.encode() + str(x.dtype).encode() + x.tobytes() for name, x in sorted(batch.items())
    )
    return hashlib.sha256(joined).hexdigest()[:16]


def write_lines(path: Path, lines: Iterable[str]) -> str:
    """Writes a text file, compressed where it is named .gz; returns its path."""
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def record(text: str) -> str:
    """A JSON line as C4 is distributed."""
    return json.dumps({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "a://b"})


def sentences(count: int, seed: int = 0) -> list[str]:
    """Some texts, none like another."""
    words = ["the", "router", "sends", "each", "token", "of", "a", "batch", "to", "one", "expert"]
    random = np.random.default_rng(seed)
    return [f"Document {i}: " + " ".join(random.choice(words, 40)) for i in range(count)]


@pytest.fixture(scope="session", autouse=True)
def few_shuffled_rows() -> Iterator[None]:
    """Our tasks fill 20 rows to shuffle in place of 1,000, which is most of a short test."""
    from switchx.data.tasks import objectives

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "SHUFFLED_ROWS", 20)
        yield


@pytest.fixture(scope="session")
def t5_model() -> str:
    if not T5_MODEL.is_file():
        pytest.skip(f"the T5 vocabulary is not at {T5_MODEL}")
    return str(T5_MODEL)


@pytest.fixture(scope="session", autouse=True)
def docs_corpus() -> Any:
    """The embedded corpus, built where no test or user has built it before."""
    from switchx.data.tasks import corpus

    return corpus.ensure(docs_config().cache_path)
