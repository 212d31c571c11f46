"""switchx data teach: a teacher's logits beside a prepared set, in the place of the teacher."""

import argparse

from switchx.cli.flags import load
from switchx.errors import UserError
from switchx.terminal import table


def run(args: argparse.Namespace) -> None:
    """Writes what is missing, and prints what is there."""
    settings = load(args)
    if settings.data.prepared_dir is None:
        raise UserError("PREPARED_DIR is not set: give the folder of the prepared set to teach.")
    from switchx import hosts
    from switchx.api.logits import teach
    from switchx.cli.hosts import joined_over

    with joined_over(args, settings.resolved, settings.data.prepared_dir, "PREPARED_DIR", False):
        found = teach(settings)
        if not hosts.is_first():
            return
    head = ("logits", "teacher", "step", "top k", "examples", "targets", "shards", "GB")
    name, teacher = settings.objective.logits, found.plan.teacher
    counts = (found.plan.top_k, found.examples, found.tokens, len(found.shards))
    row = (name, teacher["path"], teacher["step"], *counts, found.bytes / 1e9)
    for line in table([head, row]):
        print(line)
    print("train with")
    kept = f"--gin.TEACHER_TOP_K={found.plan.top_k}"  # which a student has to say too
    print(f"  --gin.OBJECTIVE=distill --gin.TEACHER_LOGITS={name} {kept}")
