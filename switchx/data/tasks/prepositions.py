"""Which preposition was cut out of a passage of documentation: what docs/finetuning.md tunes on.

To choose it takes what stands on both sides of the blank: "of", the commonest, is right in three
cases of eight. Answers have the form of span corruption, so that `switchx infer` fills the blank.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

PREPOSITIONS = ("of", "to", "in", "for", "with", "on", "from", "by", "as", "at")
BLANK = "<extra_id_0>"
WORDS = 20  # of a passage: nearly all fit into 64 pieces
BLANKED = slice(6, 16)  # where the blank may be, so that words stand on both sides of it


def blank_prepositions(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns {'text': documents} into {'inputs': a passage with a blank, 'targets': what it held}.

    Documents are cut into passages that don't overlap; in each the first preposition of its middle
    becomes the blank. Passages without one are left out.
    """
    return dataset.flat_map(_passages).filter(_has_preposition).map(_blanked)


def word_of(answer: str, **_: object) -> str:
    """The word behind the blank's sentinel, of a target or an answer; '' where there is none."""
    _before, _sentinel, behind = answer.partition(BLANK)
    return behind.partition("<extra_id_")[0].strip()


def accuracy(targets: Sequence[str], predictions: Sequence[str]) -> Mapping[str, float]:
    """Percent of the predictions that are the target."""
    right = sum(target == word for target, word in zip(targets, predictions, strict=True))
    return {"accuracy": 100 * right / len(targets)}


def _passages(document: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
    words = tf.strings.split(document["text"], " ")
    whole = tf.size(words) // WORDS * WORDS
    return tf.data.Dataset.from_tensor_slices(tf.reshape(words[:whole], [-1, WORDS]))


def _is_preposition(words: tf.Tensor) -> tf.Tensor:
    """Bool [words], of those in the middle."""
    return tf.reduce_any(words[BLANKED, None] == tf.constant(PREPOSITIONS), axis=1)


def _has_preposition(words: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(_is_preposition(words))


def _blanked(words: tf.Tensor) -> dict[str, tf.Tensor]:
    at = BLANKED.start + tf.argmax(_is_preposition(words), output_type=tf.int32)
    passage = tf.concat([words[:at], [BLANK], words[at + 1 :]], axis=0)
    return {
        "inputs": tf.strings.reduce_join(passage, separator=" "),
        "targets": tf.strings.join([BLANK, words[at]], separator=" "),
    }
