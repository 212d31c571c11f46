"""switchx data bench: how many examples a second the data gives, prepared and streamed."""

import argparse
import dataclasses
import resource
import time
from typing import TYPE_CHECKING

from switchx.errors import UserError

if TYPE_CHECKING:
    from switchx.data import DataConfig
    from switchx.settings import Settings

_WARM_UP_SECONDS = 5.0


def run(args: argparse.Namespace, settings: "Settings") -> None:
    """Prints the rates, and their ratio where both can be had."""
    config = settings.data
    lengths = config.feature_lengths
    print(
        f"batches of {config.batch_size} examples of {lengths['inputs']} + {lengths['targets']} "
        f"tokens, {args.seconds:g} s each"
    )
    if config.prepared_dir is None:
        print(f"streamed  {_rate(config, args.seconds)}")
        return
    prepared = _rate(config, args.seconds)
    print(f"prepared  {prepared}")
    try:
        streamed = _rate(dataclasses.replace(config, prepared_dir=None), args.seconds)
    except UserError as error:
        print(f"streamed  not measured: {error}")
        return
    print(f"streamed  {streamed}")
    print(f"prepared / streamed  {prepared.per_second / streamed.per_second:.1f}")


@dataclasses.dataclass(frozen=True)
class _Rate:
    examples: int
    seconds: float
    grown: float  # megabytes of this process, at its peak

    @property
    def per_second(self) -> float:
        return self.examples / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.per_second:>10,.0f} examples/s; memory grew by {self.grown:,.0f} MB over "
            f"{self.examples:,} examples"
        )


def _rate(config: "DataConfig", seconds: float) -> _Rate:
    """Of a training stream, without its start."""
    from switchx import data

    data.preflight(config, ["train"])
    stream = data.train_stream(config)
    ready = time.monotonic() + min(seconds, _WARM_UP_SECONDS)
    while time.monotonic() < ready:  # what was read ahead while the stream began does not count
        next(stream)
    before, began, batches = _peak_megabytes(), time.monotonic(), 0
    while (taken := time.monotonic() - began) < seconds:
        next(stream)
        batches += 1
    grown = _peak_megabytes() - before
    stream.close()
    return _Rate(batches * config.batch_size, taken, grown)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
