"""The languages of mC4, and the names of their tasks: plain values, that import nothing.

mC4 (Xue et al., 2021, section 3.1) holds 101 languages. Six of them are also there in Latin
script, as splits of their own, which makes 107 tasks: as many as the Switch Transformers paper
trains on in section 5.
"""

# The names of the splits of c4/multilingual:3.1.0 and of the files in allenai/c4. Hebrew is 'iw',
# and Javanese 'jv', as CLD3 calls them; what it could not tell, 'und', is in neither count.
_CODES = """
    af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha
    haw hi hmn ht hu hy id ig is it iw ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr
    ms mt my ne nl no ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr
    uk ur uz vi xh yi yo zh zu
"""
LANGUAGES = tuple(_CODES.split())
ROMANIZED = ("bg-Latn", "el-Latn", "hi-Latn", "ja-Latn", "ru-Latn", "zh-Latn")
ALL = tuple(sorted(LANGUAGES + ROMANIZED))
# p(language) is proportional to its size to this power (Xue et al., 2021, section 3.1).
ALPHA = 0.3
TFDS_MIXTURE = "mc4_span_corruption"
JSON_MIXTURE = "mc4_json_span_corruption"


def tfds_task(language: str) -> str:
    """The name of the task that reads a language from TFDS; seqio's names hold no hyphens."""
    return f"mc4_{language.replace('-', '_')}_span_corruption"


def json_task(language: str) -> str:
    """The name of the task that reads a language from JSON lines."""
    return f"mc4_json_{language.replace('-', '_')}_span_corruption"


MIXTURES = (TFDS_MIXTURE, JSON_MIXTURE)
NAMES = frozenset((*MIXTURES, *map(tfds_task, ALL), *map(json_task, ALL)))
