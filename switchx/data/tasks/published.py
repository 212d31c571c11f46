"""How the tasks' data sets are published today, where TFDS's layout of them is another.

Plain values. The files are those of the repositories named, on Hugging Face, and where a field has
two places the other is that of the authors' own JSON lines.
"""

from collections.abc import Mapping, Sequence

# The repository that holds a data set, and the folder in it of a configuration.
_REPOSITORIES = {
    "glue": ("nyu-mll/glue", "{config}"),
    "super_glue": ("aps/super_glue", "{config}"),
    "definite_pronoun_resolution": ("community-datasets/definite_pronoun_resolution", "plain_text"),
    "squad": ("rajpurkar/squad", "plain_text"),
    "cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0"),
    "xsum": ("EdinburghNLP/xsum", "data"),
    "anli": ("facebook/anli", "plain_text"),
    "winogrande": ("allenai/winogrande", "winogrande_xl"),
    "ai2_arc": ("allenai/ai2_arc", "{config}"),
    "natural_questions_open": ("google-research-datasets/nq_open", "nq_open"),
    "web_questions": ("stanfordnlp/web_questions", "data"),
    "trivia_qa": ("mandarjoshi/trivia_qa", "unfiltered.nocontext"),
}

# Where a field lies, but for its own name.
PLACES: dict[str, dict[str, Sequence[str]]] = {
    "anli": {"context": ["premise"]},
    "winogrande": {"label": ["answer"]},
    "ai2_arc": {
        "question": ["question.stem"],
        "choices/text": ["question.choices.text"],
        "choices/label": ["question.choices.label"],
    },
    "super_glue": {
        f"span{n}_{part}": [f"target.span{n}_{part}"] for n in (1, 2) for part in ("index", "text")
    },
}

# Other words for a label.
LABELS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ai2_arc": tuple(zip("12345", "ABCDE", strict=True)),
}

# Fields of TFDS that the files lack and the tasks do without: all but these, or these.
ALONE = {"trivia_qa": ("question", "answer/value", "answer/aliases")}
OPTIONAL = {
    "cnn_dailymail": ("id", "publisher"),
    "anli": ("uid",),
    "web_questions": ("url",),
    "squad": ("id", "title", "answers/answer_start"),
    "ai2_arc": ("id",),
}


def url(dataset: str, config: str) -> str | None:
    """Where the Parquet files of a data set are, as a glob; None where that is not known."""
    if dataset not in _REPOSITORIES:
        return None
    name, folder = _REPOSITORIES[dataset]
    return f"hf://datasets/{name}/{folder.format(config=config)}/*.parquet"
