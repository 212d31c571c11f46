"""What the user chose about data, and the checks that need nothing but these values."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from switchx import storage
from switchx.checks import is_whole
from switchx.data.tasks import names
from switchx.data.tasks.rates import Rate, check_scaling, check_starts, given_rates
from switchx.errors import UserError

SPLITS = ("train", "validation")
FEATURES = ("inputs", "targets")
LONGEST = 2**20  # tokens of a row
LONGEST_WAIT = 1e9  # seconds, 31 years; Python's locks can wait for 292
DERIVED = {"derived": True}  # of a field that follows from other settings
ENCODER_ALONE = "an encoder alone (ModelConfig.num_decoder_layers=0)"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run. Each field names the gin macro that sets it.

    Attributes:
      mixture_or_task_name: MIXTURE_OR_TASK_NAME, a name registered with seqio, or the one that the
        mixture of `mixture_tasks` goes by.
      mixture_tasks: MIXTURE_TASKS, names of tasks or mixtures, which come by their numbers of
        examples, or the rate of each; None where a name alone is given.
      mixture_temperature: MIXTURE_TEMPERATURE, numbers of examples are taken to 1 / this.
      mixture_maximum: MIXTURE_MAXIMUM, above which a number of examples counts as this; None is
        without limit.
      mixture_starts: MIXTURE_STARTS, by name of a task the step of the run before which none of its
        examples comes; 0 for those not named.
      feature_lengths: TASK_FEATURE_LENGTHS, tokens in a row of 'inputs' and of 'targets'.
      batch_size: BATCH_SIZE, rows of one training batch over all devices and hosts.
      eval_batch_size: EVAL_BATCH_SIZE, rows of one evaluation batch; batch_size where None.
      eval_batches: EVAL_STEPS, batches of the validation split in one evaluation; None is all.
      shards: DATA_SHARDS, parts that the training data is read in, each by one host: a batch is
        made of as many rows of each. The order of the data depends on it, whatever the number of
        hosts, so it must suit the largest that the run is to have.
      seed: SEED of everything random in the pipeline.
      vocabulary: VOCABULARY: 'default' (the task's own), 't5', 'mt5', 'python_docs',
        'python_code', 'python_code_1000', 'bytes' or the path of a SentencePiece model.
      task_module: MIXTURE_OR_TASK_MODULE, a Python module that registers seqio tasks when imported.
      tfds_data_dir: TFDS_DATA_DIR, where prepared TFDS datasets lie.
      task_files: TASK_FILES, globs of the files of each split, JSON lines, a JSON array or Parquet
        each, that a task reads in the place of its TFDS dataset; '{config}' stands for the
        dataset's configuration, as 'cola' of glue.
      task_fields: TASK_FIELDS, where a field of the task lies in these files, if not under its own
        name: a path as 'answers.text', or a text with paths in it as 'question: {question}'.
      task_metrics: TASK_METRICS, of the task 'task_files': names of metrics of the package t5.
      mode_tokens: MODE_TOKENS, whether the inputs of UL2's denoisers begin with the tokens of their
        mode: '[NLU]', '[S2S]' or '[NLG]'.
      prepared_dir: PREPARED_DIR, where `switchx data prepare` wrote, here, at gs:// or s3://; None
        reads the sources.
      prepared_cache_gb: PREPARED_CACHE_GB, gigabytes that copies of shards from a PREPARED_DIR at a
        URL may take of the cache folder; 0 makes none.
      pack: PACK, several short examples in a row, which see nothing of each other; examples
        without a token in 'inputs' or in 'targets' are left out.
      text_files: TEXT_FILES, globs of the files of each split that 'text_files_span_corruption'
        reads, here or behind a URL of fsspec's: text, JSON lines, a JSON array or Parquet each.
      text_field: TEXT_FIELD, where the text lies in a record of JSON or Parquet, said as
        TASK_FIELDS does.
      json_train_glob: C4_JSON_TRAIN, the same of C4's train split: en or realnewslike, as in
        'hf://datasets/allenai/c4/realnewslike/c4-train.*.json.gz'. The mc4_json_ tasks put their
        language in place of '{language}', as in
        'hf://datasets/allenai/c4/multilingual/c4-{language}.*.json.gz'.
      json_validation_glob: C4_JSON_VALIDATION, the same for the validation split; of mC4
        'hf://datasets/allenai/c4/multilingual/c4-{language}-validation.*.json.gz'.
      max_broken_share: MAX_BROKEN_LINES, the share of unreadable lines, and of unreadable records
        of a prepared set, that is still tolerated.
      eval_each_task: EVAL_EACH_TASK, whether the tasks of a mixture are evaluated one by one too,
        each on as many batches; a task that is no mixture has nothing besides.
      timeout: DATA_TIMEOUT, seconds in which a batch must come.
      cache_dir: CACHE_DIR; $SWITCHX_CACHE or ~/.cache/switchx where None.
      logits: the name of the set of a teacher's logits (`switchx data teach`) that come with the
        training batches: no setting of its own, but TEACHER_LOGITS where these count.
      encoder_alone: whether batches are an encoder's alone (masked.py): no setting of its own, but
        as the model is.
    """

    mixture_or_task_name: str
    feature_lengths: Mapping[str, int]
    batch_size: int
    mixture_tasks: Sequence[str] | Mapping[str, Rate] | None = None
    mixture_temperature: float = 1.0
    mixture_maximum: float | None = None
    mixture_starts: Mapping[str, int] | None = None
    eval_batch_size: int | None = None
    eval_batches: int | None = 20
    shards: int = 1
    seed: int = 0
    vocabulary: str = "default"
    task_module: str | None = None
    tfds_data_dir: str | None = None
    task_files: Mapping[str, str] | None = None
    task_fields: Mapping[str, str] | None = None
    task_metrics: Sequence[str] = ()
    mode_tokens: bool = False
    prepared_dir: str | None = None
    prepared_cache_gb: float = 20.0
    pack: bool = False
    text_files: Mapping[str, str] | None = None
    text_field: str = "text"
    json_train_glob: str | None = None
    json_validation_glob: str | None = None
    max_broken_share: float = 0.01
    eval_each_task: bool = False
    timeout: float = 600.0
    cache_dir: str | None = None
    logits: str | None = dataclasses.field(default=None, metadata=DERIVED)
    encoder_alone: bool = dataclasses.field(default=False, metadata=DERIVED)

    @property
    def rows_per_eval_batch(self) -> int:
        """Rows of one evaluation batch."""
        return self.batch_size if self.eval_batch_size is None else self.eval_batch_size

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names that the data is of: those in MIXTURE_TASKS, or the one given."""
        return tuple(self.mixture_tasks or (self.mixture_or_task_name,))

    @property
    def mixture_rates(self) -> dict[str, Rate]:
        """The rate of each of MIXTURE_TASKS, a number or by its examples; {} without them."""
        return {} if self.mixture_tasks is None else given_rates(self.mixture_tasks)

    def of_task(self, name: str) -> "DataConfig":
        """The same of one task alone, or of another mixture that is registered."""
        return dataclasses.replace(
            self,
            mixture_or_task_name=name,
            mixture_tasks=None,
            mixture_temperature=1.0,
            mixture_maximum=None,
            mixture_starts=None,
        )

    @property
    def cache_path(self) -> Path:
        """The folder everything that can be made again is kept in."""
        chosen = self.cache_dir or os.environ.get("SWITCHX_CACHE") or "~/.cache/switchx"
        path = os.path.expanduser(chosen)
        if path.startswith("~"):
            raise UserError(
                f"CACHE_DIR={chosen!r} is below a home folder, and this user has none: set "
                "CACHE_DIR or SWITCHX_CACHE to a folder that can be written to."
            )
        return storage.local_path(path, "CACHE_DIR")


def check_values(config: DataConfig) -> None:
    """Raises UserError for the first value that no pipeline could be built from."""
    if not config.mixture_or_task_name:
        raise UserError("MIXTURE_OR_TASK_NAME is empty: give the name of a task or mixture.")
    if config.mixture_tasks is not None:
        _check_mixture(config)
    check_scaling(config.mixture_temperature, config.mixture_maximum)
    check_starts(config.mixture_starts)
    _check_lengths(config.feature_lengths)
    if config.encoder_alone:
        _check_same(config.feature_lengths, ENCODER_ALONE)
    elif names.MASKED.keys() >= {*config.names}:  # rows of a mixture may be of two lengths
        _check_same(config.feature_lengths, f"MIXTURE_OR_TASK_NAME={config.mixture_or_task_name!r}")
    _check_texts("TASK_FILES", config.task_files, "{'train': '/data/train-*.parquet'}")
    _check_texts("TEXT_FILES", config.text_files, "{'train': '/data/*.txt'}")
    if not isinstance(config.text_field, str) or not config.text_field:
        raise UserError(f"TEXT_FIELD={config.text_field!r} is no name: give one, as 'text'.")
    _check_texts("TASK_FIELDS", config.task_fields, "{'inputs': 'question'}")
    _check_positive("BATCH_SIZE", config.batch_size)
    if config.eval_batch_size is not None:
        _check_positive("EVAL_BATCH_SIZE", config.eval_batch_size)
    if config.eval_batches is not None:
        _check_positive("EVAL_STEPS", config.eval_batches)
    _check_positive("DATA_SHARDS", config.shards)
    if config.batch_size % config.shards:
        raise UserError(
            f"DATA_SHARDS={config.shards} does not divide BATCH_SIZE={config.batch_size}: "
            "give a divisor of it."
        )
    if not is_whole(config.seed) or not 0 <= config.seed < 2**31:
        raise UserError(
            f"SEED={config.seed!r} is no seed: give a whole number from 0 to {2**31 - 1}."
        )
    if not 0 <= config.prepared_cache_gb < math.inf:
        raise UserError(
            f"PREPARED_CACHE_GB={config.prepared_cache_gb!r} is no size: give gigabytes, 0 for no "
            "copies."
        )
    if not 0 < config.timeout <= LONGEST_WAIT:
        raise UserError(
            f"DATA_TIMEOUT={config.timeout!r} is no time: give the seconds in which a batch must "
            f"come, at most {LONGEST_WAIT:g}."
        )
    if not 0 <= config.max_broken_share <= 1:
        raise UserError(
            f"MAX_BROKEN_LINES={config.max_broken_share!r} is no share: give one from 0 to 1."
        )


def _check_mixture(config: DataConfig) -> None:
    name = config.mixture_or_task_name
    if name in config.mixture_rates:
        raise UserError(
            f"MIXTURE_OR_TASK_NAME={name!r} is one of MIXTURE_TASKS, which make a mixture of that "
            "name: give it one of its own, or set MIXTURE_TASKS=None for the task alone."
        )


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if not isinstance(lengths, Mapping) or sorted(lengths) != sorted(FEATURES):
        shown = dict(lengths) if isinstance(lengths, Mapping) else lengths
        raise UserError(
            f"TASK_FEATURE_LENGTHS={shown!r} is no pair of lengths: give those of exactly 'inputs' "
            "and 'targets', as in {'inputs': 512, 'targets': 114}."
        )
    for feature in FEATURES:
        if not is_whole(lengths[feature]) or lengths[feature] < 2:
            raise UserError(
                f"TASK_FEATURE_LENGTHS['{feature}']={lengths[feature]!r} is too short: "
                "give a whole number of at least 2 (one token and the end of sequence)."
            )
        if lengths[feature] > LONGEST:
            raise UserError(
                f"TASK_FEATURE_LENGTHS['{feature}']={lengths[feature]} is too long: give at most "
                f"{LONGEST}."
            )


def _check_same(lengths: Mapping[str, int], what: str) -> None:
    if lengths["inputs"] != lengths["targets"]:
        same = {feature: lengths["inputs"] for feature in FEATURES}
        raise UserError(
            f"TASK_FEATURE_LENGTHS={dict(lengths)} gives two lengths, and {what} has its "
            f"targets at the places of its inputs: give one, as in {same}."
        )


def _check_texts(name: str, value: object, example: str) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and text for pair in value.items() for text in pair
    ):
        raise UserError(f"{name}={value!r} is no dict of texts: give one, as in {example}.")


def _check_positive(name: str, value: object) -> None:
    if not is_whole(value) or value < 1:
        raise UserError(f"{name}={value!r} is no count: give a whole number of at least 1.")
