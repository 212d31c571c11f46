"""One of the paper's tasks of each kind in a mixture, for a test of the command."""

import seqio
import t5.data.mixtures  # noqa: F401  (registers its tasks)

TASKS = {
    "glue_cola_v002": 1.0,
    "squad_v010_allanswers": 1.0,
    "xsum_v110": 1.0,
    "trivia_qa_open": 1.0,
    "arc_easy_v100_score_eval": 0.0,
}
seqio.MixtureRegistry.add("one_of_each", list(TASKS.items()))
