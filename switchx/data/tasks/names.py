"""The names of this package's tasks, their vocabularies, and what they read: plain values.

mC4 (Xue et al., 2021, section 3.1) holds 101 languages. Six of them are also there in Latin
script, as splits of their own, which makes 107 tasks: as many as the Switch Transformers paper
trains on in section 5.
"""

from collections.abc import Callable, Sequence

PYTHON_DOCS = "python_docs_span_corruption"
PYTHON_CODE = "python_code_span_corruption"
PYTHON_CODE_PREFIX = "python_code_prefix_lm"
PREPOSITIONS = "python_docs_prepositions"
PYTHON_DOCS_MASKED = "python_docs_masked_lm"
PYTHON_CODE_MASKED = "python_code_masked_lm"
C4_TFDS = "c4_v310_span_corruption"
ENGLISH_TFDS = {
    C4_TFDS: "c4/en:3.1.0",
    "c4_realnewslike_span_corruption": "c4/realnewslike:3.1.0",
    "c4_webtextlike_span_corruption": "c4/webtextlike:3.1.0",
}
C4_JSON = "c4_json_span_corruption"
TEXT = "text_files_span_corruption"  # whatever text TEXT_FILES names
TEXT_MASKED = "text_files_masked_lm"
C4_JSON_MASKED = "c4_json_masked_lm"
C4_TFDS_MASKED = "c4_v310_masked_lm"
# Of each task that masks tokens, the one of span corruption that reads the same text.
MASKED = {
    PYTHON_DOCS_MASKED: PYTHON_DOCS,
    PYTHON_CODE_MASKED: PYTHON_CODE,
    C4_TFDS_MASKED: C4_TFDS,
    C4_JSON_MASKED: C4_JSON,
    TEXT_MASKED: TEXT,
}
# Of each of UL2's mixtures of denoisers, the task of span corruption that reads the same text.
UL2 = {
    "python_docs_ul2": PYTHON_DOCS,
    "python_code_ul2": PYTHON_CODE,
    "c4_v310_ul2": C4_TFDS,
    "c4_json_ul2": C4_JSON,
    "text_files_ul2": TEXT,
}
# Mean span and percent that is cut out, as objectives.py has them.
DENOISERS = ("r3_15", "r8_15", "s_25", "x3_50", "x8_50", "x64_15", "x64_50")
UL2_TASKS = {mixture: tuple(f"{mixture}_{kind}" for kind in DENOISERS) for mixture in UL2}
# The denoiser of each of their tasks.
DENOISER_OF = {f"{mixture}_{kind}": kind for mixture in UL2 for kind in DENOISERS}
MC4_TFDS = "c4/multilingual:3.1.0"

# The names of the splits of c4/multilingual:3.1.0 and of the files in allenai/c4. Hebrew is 'iw',
# and Javanese 'jv', as CLD3 calls them; what it could not tell, 'und', is in neither count.
_CODES = """
    af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha
    haw hi hmn ht hu hy id ig is it iw ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr
    ms mt my ne nl no ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr
    uk ur uz vi xh yi yo zh zu
"""
LANGUAGES = (*_CODES.split(), "bg-Latn", "el-Latn", "hi-Latn", "ja-Latn", "ru-Latn", "zh-Latn")
# p(language) is proportional to its size to this power (Xue et al., 2021, section 3.1).
ALPHA = 0.3
MC4_TFDS_MIXTURE = "mc4_span_corruption"
MC4_JSON_MIXTURE = "mc4_json_span_corruption"
MC4_MIXTURES = (MC4_TFDS_MIXTURE, MC4_JSON_MIXTURE)


def tfds_task(language: str) -> str:
    """The name of the task that reads a language from TFDS; seqio's names hold no hyphens."""
    return f"mc4_{language.replace('-', '_')}_span_corruption"


def json_task(language: str) -> str:
    """The name of the task that reads a language from JSON lines."""
    return f"mc4_json_{language.replace('-', '_')}_span_corruption"


def _ul2_of(text: str) -> tuple[str, ...]:
    """UL2's mixture of a text and its tasks."""
    mixture = next(mixture for mixture, of in UL2.items() if of == text)
    return mixture, *UL2_TASKS[mixture]


MC4 = frozenset((*MC4_MIXTURES, *map(tfds_task, LANGUAGES), *map(json_task, LANGUAGES)))
# Those that read files of text by their globs, and the language of each, where it is in the glob.
TEXT_TASKS = {TEXT: "", TEXT_MASKED: "", C4_JSON: "", C4_JSON_MASKED: "", MC4_JSON_MIXTURE: "en"}
TEXT_TASKS |= {json_task(code): code for code in LANGUAGES}
TEXT_TASKS |= dict.fromkeys((*_ul2_of(TEXT), *_ul2_of(C4_JSON)), "")
OWN_TEXT = (TEXT, TEXT_MASKED, *_ul2_of(TEXT))  # by TEXT_FILES

NO_TASK = "any"  # stands for one where a command needs none

TASK_FILES = "task_files"  # whatever rows files have, by TASK_FILES and TASK_FIELDS
TASK_METRICS = ("accuracy", "bleu", "rouge", "squad", "trivia_qa")  # of the package t5

PUBLIC_MODELS = {
    "t5": "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model",
    "mt5": "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model",
}
# How many ids and sentinels these files have, numbered as T5 does: known without reading them.
PUBLIC_IDS = {"t5": (32_100, 100), "mt5": (250_100, 100)}
# Known without asking seqio.
VOCABULARIES = {
    PYTHON_DOCS: "python_docs",
    PYTHON_CODE: "python_code",
    PYTHON_CODE_PREFIX: "python_code_1000",
    PREPOSITIONS: "python_docs",
    **dict.fromkeys((*ENGLISH_TFDS, C4_JSON, TEXT), "t5"),
    **dict.fromkeys(MC4, "mt5"),
}
VOCABULARIES |= {name: VOCABULARIES[of] for of in UL2.values() for name in _ul2_of(of)}
SPAN_CORRUPTION = VOCABULARIES.keys() - {PREPOSITIONS}
VOCABULARIES |= {name: VOCABULARIES[of] for name, of in MASKED.items()}
EMBEDDED = frozenset(name for name, of in VOCABULARIES.items() if of.startswith("python_"))


def may_read_text_files(names: Sequence[str]) -> bool:
    """Whether one of these may read TEXT_FILES or C4_JSON_TRAIN.

    A name that is not of this package may be a mixture with such a task.
    """
    return _one_may(names, lambda name: name in TEXT_TASKS)


def may_read_c4_json(names: Sequence[str]) -> bool:
    """The same of C4_JSON_TRAIN and C4_JSON_VALIDATION."""
    return _one_may(names, lambda name: name in TEXT_TASKS and name not in OWN_TEXT)


def may_read_tfds(names: Sequence[str]) -> bool:
    """The same of TFDS_DATA_DIR."""
    return _one_may(names, lambda name: name not in EMBEDDED and name not in TEXT_TASKS)


def _one_may(names: Sequence[str], reads: Callable[[str], bool]) -> bool:
    return any(name not in VOCABULARIES or reads(name) for name in names)
