"""switchx data bench: how many examples a second the data gives, prepared and streamed."""

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING

from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.cli.gin_config import Settings
    from switchx.data import DataConfig

_BATCHES = 100
_WARM_UP = 8  # more than either reads ahead, so that what is timed was not read before


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints the rates, and their ratio where both can be had."""
    config, batches = settings.data, args.count or _BATCHES
    lengths = config.feature_lengths
    print(
        f"{batches} batches of {config.batch_size} examples of {lengths['inputs']} + "
        f"{lengths['targets']} tokens"
    )
    if config.prepared_dir is None:
        print(f"streamed  {_rate(config, batches):>10,.0f} examples/s")
        return
    prepared = _rate(config, batches)
    print(f"prepared  {prepared:>10,.0f} examples/s")
    try:
        streamed = _rate(dataclasses.replace(config, prepared_dir=None), batches)
    except UserError as error:
        print(f"streamed  not measured: {error}")
        return
    print(f"streamed  {streamed:>10,.0f} examples/s")
    print(f"prepared / streamed  {prepared / streamed:.1f}")


def _rate(config: "DataConfig", batches: int) -> float:
    """Examples per second of a training stream, its start left out."""
    from switchx import data

    data.preflight(config)
    stream = data.train_stream(config)
    for _ in range(_WARM_UP):
        next(stream)
    began = time.monotonic()
    for _ in range(batches):
        next(stream)
    seconds = time.monotonic() - began
    stream.close()
    return batches * config.batch_size / seconds
