"""SentencePiece models with any ids."""

import io

import sentencepiece

TEXTS = [f"some words and {n} more" for n in range(200)]


def model_with(**settings: object) -> bytes:
    """A model of a few pieces, by SentencePiece's own trainer and, where not said, its defaults."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 60, **settings},
    )
    return model.getvalue()
