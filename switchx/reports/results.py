"""What a finished run shows: how good it is, how its experts are used, where its pictures are."""

from collections.abc import Sequence
from pathlib import Path

import jax

from switchx.evaluation import examples
from switchx.reports.pictures import DEAD_LOAD
from switchx.settings.loading import Settings
from switchx.training import TrainResult

ROWS, BLANKS_PER_ROW = 5, 2


def show(settings: Settings, result: TrainResult, drawn: Sequence[Path]) -> None:
    """Prints the end of `switchx train`."""
    print(f"\nTrained {result.step:,} steps in {settings.model_dir}")
    for line in (*_quality(result), *_experts(result)):
        print(line)
    if jax.process_count() == 1:  # answers are generated on one host: `switchx infer` has them
        print("  blanks it fills     (text: what the model put there | what stood there)")
        for line in _blanks(settings):
            print(line)
    for line in _pictures(drawn):
        print(line)


def _quality(result: TrainResult) -> list[str]:
    if not result.validation:
        return []
    values = result.validation
    return [
        f"  validation loss     {values['loss']:.4f} nats per token",
        f"  unigram entropy     {values['unigram_entropy']:.4f} nats, "
        "what knowing only the words' frequencies gives",
        f"  accuracy            {values['accuracy']:.1%}",
    ]


def _experts(result: TrainResult) -> list[str]:
    if result.load is None:
        return []
    shares = [share * len(layer) for layer in result.load.tolist() for share in layer]
    dead = sum(share < DEAD_LOAD for share in shares)
    return [
        f"  experts             least used {min(shares):.2f} of an equal share, "
        f"most used {max(shares):.2f}; {dead or 'none'} dead",
    ]


def _blanks(settings: Settings) -> list[str]:
    return [
        f"    {blank.before:>36} ____ {blank.after:<36} : "
        f"{_short(blank.given) or '-'} | {_short(blank.truth)}"
        for blank in examples.fill(
            settings.run, settings.data, settings.model_dir, ROWS, BLANKS_PER_ROW
        )
    ]


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _pictures(drawn: Sequence[Path]) -> Sequence[str]:
    return [f"  picture             {path}" for path in drawn]
