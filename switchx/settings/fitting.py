"""Do vocabulary, objective, lengths and model fit? The one place where these settings meet.

Every command asks here once its settings are read, before it opens, makes or compiles anything.
"""

import dataclasses

from switchx import data
from switchx.settings.idle import check_idle_of_set
from switchx.settings.settings import Settings
from switchx.training.checks import check_vocabulary


def check_fits(
    settings: Settings,
    model: bool = True,
    objective: bool = True,
    prepared: bool = True,
    asked: bool = False,
) -> None:
    """Raises UserError where two settings contradict each other, as far as is known in moments.

    What has to be fetched or built is compared when it is there.

    Args:
      model: whether the model is one that the caller chose.
      objective: whether the caller reads data, rather than texts of his own.
      prepared: whether PREPARED_DIR is read; else what is to be prepared there.
      asked: whether a task that alone knows its vocabulary is asked for it, which takes TensorFlow;
        else the caller compares when he has it.
    """
    config = settings.data if prepared else dataclasses.replace(settings.data, prepared_dir=None)
    ids = data.known_ids(config) if model else None
    if ids is None and model and asked:
        ids = data.asked_ids(config)
    if ids is not None:
        check_vocabulary(settings.run.model.vocab_size, ids.size)
    if prepared:
        check_idle_of_set(settings)
    if objective:
        data.check_objective(config)
