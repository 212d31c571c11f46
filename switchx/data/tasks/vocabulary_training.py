"""Trains a SentencePiece vocabulary with the ids that T5 has, on a part of some text.

Padding is 0, the end of sequence 1, what is unknown 2; there is no start of sequence, and the last
ids are the sentinels. What has no piece of its own is written in bytes, so that nothing is unknown.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from switchx.data.tasks.texts import LineCounter, blocks_of
from switchx.errors import UserError

MOST_FILES = 64  # that a sample is read from, evenly spaced
LEAST_SIZE = 3 + 256  # control ids and bytes
_CHARS = 1_000  # of a sentence: SentencePiece leaves out what has more than 4,192 bytes
_TOO_LARGE = re.compile(r"set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"required_chars. (\d+) vs (\d+)")


class Sample:
    """Texts of some files, a block of each in turn, until they have so many bytes.

    The same files give the same texts.

    Attributes:
      files: those that are read.
    """

    def __init__(self, files: Sequence[str], field: str, most_bytes: int) -> None:
        """field: where the text lies in a record of JSON or Parquet."""
        self.files = files[:: -(-len(files) // MOST_FILES)]
        self._field, self._left = field, most_bytes
        self._counter = LineCounter(1.0, field, "--text_field")

    @property
    def broken(self) -> int:
        """Records without a text, which were passed over."""
        return self._counter.broken

    def texts(self, tick: Callable[[int], Any]) -> Iterator[str]:
        """Yields the texts, once.

        Args:
          tick: is told the bytes of each.

        Raises:
          UserError: a file cannot be read, or none holds text.
        """
        readers = [blocks_of(path, "--input", self._field) for path in self.files]
        while readers:
            for blocks in list(readers):
                block = next(blocks, None)
                if block is None:
                    readers.remove(blocks)
                    continue
                for text in self._counter.parse(block):
                    tick(len(text))
                    yield text.decode()
                    self._left -= len(text)
                    if self._left <= 0:
                        return
        self._counter.finish_pass("--input")


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """Yields the lines of texts, cut at spaces where they are long."""
    for text in texts:
        for line in text.splitlines():
            begin = 0
            while begin < len(line):
                end = begin + _CHARS
                if end < len(line):
                    end = line.rfind(" ", begin, end) + 1 or end
                yield line[begin:end]
                begin = end


def train(sentences: Iterable[str], pieces: int, hard_limit: bool = True) -> bytes:
    """Trains a model; the same sentences give the same bytes.

    Args:
      pieces: how many it has, control ids and bytes among them.
      hard_limit: whether text that gives fewer is refused; else there are fewer.

    Raises:
      UserError: so many pieces do not go with the text.
    """
    import sentencepiece

    model = io.BytesIO()  # not model_prefix: the model would carry the name of a temporary folder
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=pieces,
            hard_vocab_limit=hard_limit,
            byte_fallback=True,  # no text is ever unknown
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=4,  # fixed: the sums of each thread decide the last bits of the scores
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _refused(str(error)) from error
    return model.getvalue()


class SizeError(ValueError):
    """A number of pieces that a text cannot have.

    Attributes:
      least, most: what it can have, as far as SentencePiece says.
    """

    def __init__(self, least: int | None, most: int | None) -> None:
        super().__init__(f"least {least}, most {most}")
        self.least, self.most = least, most


def _refused(said: str) -> Exception:
    large, small = _TOO_LARGE.search(said), _TOO_SMALL.search(said)
    if large:
        return SizeError(None, int(large[1]))
    if small:
        return SizeError(int(small[2]), None)
    return UserError(f"SentencePiece could not train a vocabulary ({said.strip()[:200]}).")


def with_sentinels(model: bytes, count: int) -> bytes:
    """The model with so many sentinels as its last pieces."""
    from switchx.data.tasks.sentence_pieces import SentencePieces

    return SentencePieces(model, extra_ids=count).with_blanks
