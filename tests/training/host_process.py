"""One process of a job of several: trains the tiny run of `helpers` on its share of the devices.

python -m tests.training.host_process MODEL_DIR ADDRESS COUNT INDEX [JSON]

JSON may name `mesh` (sizes of data, expert, model), `train_steps`, `slow_after` (batches after
which each takes three seconds), `bad` (batches that give a loss that is not finite, and are
skipped), `scored` (whether a task is scored too) and `timeout`.
"""

import dataclasses
import functools
import json
import sys
import time
import types
from collections.abc import Sequence

import numpy as np
from jax._src import compiler

from switchx import hosts
from switchx.cli import environment
from switchx.errors import RunError, UserError
from switchx.hosts.job import Job
from switchx.sharding import MeshConfig
from switchx.training import train
from tests.training import helpers, scored

SHARDS = 4


class HostStream(helpers.Stream):
    count = SHARDS
    slow_after: float
    bad: Sequence[int]

    def __next__(self):
        time.sleep(3.0 if self.number >= self.slow_after else 0.0)
        found = super().__next__()
        if self.number - 1 in self.bad:
            found["decoder_loss_weights"] = found["decoder_loss_weights"] * np.nan
        return found


def keep_compiled():
    """JAX lets the first host alone write the compile cache, and others' programs have other keys:

    each start of these would compile them again.
    """
    first = types.SimpleNamespace(process_id=0, client=None)
    compiler.distributed = types.SimpleNamespace(global_state=first)


def main(model_dir, address, count, index, options="{}"):
    options = json.loads(options)
    HostStream.slow_after = options.get("slow_after", 10**9)
    HostStream.bad = options.get("bad", ())
    run = helpers.run_config(
        **helpers.NARROW,
        batch=helpers.shape(SHARDS),
        mesh=MeshConfig(*options.get("mesh", (2, 4, 1))),
        train_steps=options.get("train_steps", 10),
        on_bad_loss="skip" if HostStream.bad else "stop",
    )
    feed = helpers.feed(HostStream)
    if options.get("scored"):
        scoring = functools.partial(scored.evaluation, model_dir)
        feed = dataclasses.replace(feed, evaluation=scoring)
    job = Job(address, int(count), int(index)) if int(count) > 1 else None
    facts = {"configuration": repr(run)}
    timeout = options.get("timeout", 240)
    with hosts.joined(job, facts, timeout, lambda: "of all tests' jobs", True) as token:
        result = train(run, model_dir, feed, "# none\n", token)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


if __name__ == "__main__":
    environment.collect_garbage_less()
    keep_compiled()
    try:
        status = main(*sys.argv[1:])
    except (UserError, RunError) as error:
        print(f"switchx: {error}", file=sys.stderr)
        status = 2 if isinstance(error, UserError) else 1
    sys.exit(status)
