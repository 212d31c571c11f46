"""What each embedded corpus is made of; `corpus` makes it."""

import dataclasses
from collections.abc import Mapping

from switchx.data.tasks import docstrings, source_code
from switchx.data.tasks.names import PYTHON_CODE, PYTHON_CODE_PREFIX, PYTHON_DOCS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a corpus is made of.

    Attributes:
      name: of its folder in the cache, and of its vocabulary.
      task: that reads it.
      version: raised whenever the same installation would give other files.
      packages: folder in site-packages and name of its distribution: what every installation of
        switchx has. A fixed list, so that installing something else later does not make another
        vocabulary.
      reader: a program: names of files on stdin, on stdout a JSON line each, a list of texts.
      max_bytes: of all documents.
      pieces: of the vocabulary.
    """

    name: str
    task: str
    version: int
    packages: Mapping[str, str]
    reader: str
    max_bytes: int
    pieces: int


DOCS = Recipe(
    name="python_docs",
    task=PYTHON_DOCS,
    version=2,
    packages={
        "flax": "flax",
        "jax": "jax",
        "matplotlib": "matplotlib",
        "numpy": "numpy",
        "optax": "optax",
        "pandas": "pandas",
        "scipy": "scipy",
        "sklearn": "scikit_learn",
    },
    reader=docstrings.__file__,
    max_bytes=20_000_000,
    # Few: each is met often enough to be learned within minutes, and most of the time goes into
    # the layers rather than into the logits.
    pieces=2_000,
)
CODE = Recipe(
    name="python_code",
    task=PYTHON_CODE,
    version=1,
    packages={
        "apache_beam": "apache_beam",
        "beartype": "beartype",
        "flax": "flax",
        "fontTools": "fonttools",
        "fsspec": "fsspec",
        "grain": "grain",
        "huggingface_hub": "huggingface_hub",
        "jax": "jax",
        "jaxlib": "jaxlib",
        "keras": "keras",
        "matplotlib": "matplotlib",
        "numpy": "numpy",
        "optax": "optax",
        "orbax": "orbax_checkpoint",
        "pyglove": "pyglove",
        "scipy": "scipy",
        "seqio": "seqio",
        "tensorflow": "tensorflow",
        "tensorflow_datasets": "tensorflow_datasets",
    },
    reader=source_code.__file__,
    max_bytes=200_000_000,
    pieces=2_000,
)
# Half as many pieces: of a small model's FLOPs most are those of the logits.
CODE_1000 = dataclasses.replace(
    CODE, name="python_code_1000", task=PYTHON_CODE_PREFIX, pieces=1_000
)
RECIPES = {recipe.name: recipe for recipe in (DOCS, CODE, CODE_1000)}
