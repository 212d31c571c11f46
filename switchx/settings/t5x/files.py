"""What T5X's and flaxformer's own gin files say, for whoever has no checkout of them.

Read where an include or a --gin_file names one that is not there: sizes and settings of
google-research/t5x (t5x/examples/t5, t5x/configs/runs, t5x/contrib/moe/configs/runs) and
google/flaxformer (flaxformer/t5x/configs/t5 and /moe), as values.
"""

import re
from typing import Any

from switchx.settings.gin_syntax import Binding
from switchx.settings.t5x.known_flaxformer import flaxformer, flaxformer_t5, moe
from switchx.settings.t5x.known_models import GATED, PLAIN, scalable_t5, t5
from switchx.settings.t5x.known_runs import moe_run, run

KNOWN = ", as switchx knows it"  # how the place of a setting of these files ends


def known(name: str) -> list[Binding] | None:
    """The settings of a file of T5X; None where it is none of those known here."""
    for pattern, values_of in _FILES.items():
        match = re.fullmatch(pattern, name)
        if match:
            values = values_of(*match.groups())
            return None if values is None else [_binding(k, v, name) for k, v in values.items()]
    return None


def refusal(name: str) -> str | None:
    """Why a file of T5X is of no use here; None where nothing is known against it."""
    return next((why for pattern, why in _NONE_HERE.items() if re.match(pattern, name)), None)


_NONE_HERE = {
    r"t5x/examples/decoder_only/": "a decoder alone, where switchx trains encoder-decoders",
    r"flaxformer/t5x/configs/calm/": "CALM's early exits, which switchx does not have",
    r"flaxformer/t5x/configs/(longt5|h_transformer|perceiver_ar)/": (
        "another attention, where switchx has T5's"
    ),
    r"t5x/.*/(eval|infer|infer_from_tfexample_file)\.gin": (
        "of T5X's scripts beside training: `switchx eval` and `switchx infer` take a run"
    ),
    r"t5x/.*/(export|export_seqio|precompile)\.gin": (
        "of T5X's scripts beside training: see `switchx export` and `switchx plan`"
    ),
    r"t5x/contrib/moe/configs/runs/sparse_upcycle\.gin": (
        "upcycling: `switchx upcycle` makes a switch model of a dense run"
    ),
}


def _binding(name: str, value: Any, file: str) -> Binding:
    scope, _, target = name.rpartition("/")
    return Binding(target, value, f"{file}{KNOWN}", scope=scope)


_FILES: dict[str, Any] = {
    r"t5x/examples/t5/(t5_1_1|t5_1_0|mt5|byt5)/(\w+)\.gin": t5,
    r"t5x/examples/scalable_t5/(t5_1_1|mt5)/(\w+)\.gin": scalable_t5,
    r"t5x/configs/runs/(pretrain|finetune)\.gin": lambda name: run(name == "finetune"),
    r"t5x/contrib/moe/configs/runs/(pretrain|continue_pretrain|finetune)\.gin": moe_run,
    r"flaxformer/t5x/configs/t5/models/(\w+)\.gin": flaxformer_t5,
    r"flaxformer/t5x/configs/t5/architectures/(t5|t5_1_1)_flaxformer\.gin": lambda name: flaxformer(
        False, PLAIN if name == "t5" else GATED, tied=name == "t5"
    ),
    r"flaxformer/t5x/configs/moe/architectures/moe\.gin": lambda: flaxformer(True, GATED, False),
    r"flaxformer/t5x/configs/moe/models/(switch|tokens_choose|st_moe)_(\w+)\.gin": moe,
}
