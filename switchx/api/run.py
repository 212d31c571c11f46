"""A run that was started, opened to be asked: run.answer(["Return the __ of the list."])."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from switchx.api.by_name import bindings
from switchx.api.given import as_python, listed, listed_strs, path_str, step_number, utf8_text
from switchx.checks import is_whole
from switchx.data.config import ENCODER_ALONE
from switchx.errors import UserError
from switchx.settings import Request, Settings, load

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from switchx.data import Vocabulary
    from switchx.inference import Answer, DecodingConfig
    from switchx.model import Model, Params


class LayerRouting(NamedTuple):
    """Where a layer of experts sends the tokens of one text, each to J experts.

    Attributes:
      name: "encoder 2", or "decoder 1 attention" where experts are in attention.
      expert_LJ: int32. In the encoder L are the text's tokens and its end of sequence; in the
        decoder what it reads there: the start token, then the target without its end.
      gate_LJ: float32, the weight of the expert's output; 0 where it is not kept.
      kept_LJ: bool, whether the expert took the token.
      likely_LK, prob_LK: int32 and float32, the likeliest experts by the router and their
        probabilities, the last the runner-up.
      entropy_L: float32, of the router's distribution, nats.
    """

    name: str
    expert_LJ: np.ndarray
    gate_LJ: np.ndarray
    kept_LJ: np.ndarray
    likely_LK: np.ndarray
    prob_LK: np.ndarray
    entropy_L: np.ndarray


class Run:
    """A run that was started: its configuration, its metrics, and its model, to be asked.

    Nothing heavy is imported, and no checkpoint read, before something is asked that needs it.

    Attributes:
      config: the settings that its config.gin holds, with the changes asked for.
    """

    def __init__(self, model_dir: str | Path, step: int | None = None, **settings: Any):
        """Opens a run's directory.

        Args:
          step: of the checkpoint to use; None is the newest.
          settings: what is to be otherwise than in its config.gin, as MESH_EXPERT=1. EVAL_STEPS
            is None, for the whole split, where it is not among them.

        Raises:
          UserError: no run was started there.
        """
        directory = path_str("model_dir", model_dir)
        asked = Request(bindings=bindings(settings, directory), model_dir=directory)
        self._step = step_number("step", step)
        self.config = load(asked.of_run().of_whole_split())

    @classmethod
    def of(cls, config: Settings, step: int | None = None) -> "Run":
        """The run of these settings, whose directory must have been written."""
        run = cls.__new__(cls)
        run.config, run._step = config, step
        return run

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: "step", "split", "time", then the scalars and arrays."""
        from switchx.training.run_reader import metric_rows

        return metric_rows(self.config.model_dir)

    @functools.cached_property
    def mesh(self) -> "Mesh":
        """The devices that the model lies on."""
        from switchx.sharding import make_mesh

        return make_mesh(self.config.run.mesh)

    @functools.cached_property
    def model(self) -> "Model":
        """The model without its parameters."""
        from switchx.model import Model

        return Model.of(self.config.run.model)

    @functools.cached_property
    def vocabulary(self) -> "Vocabulary":
        """What its texts are encoded with."""
        from switchx import data

        return data.vocabulary(self.config.data)

    @property
    def params(self) -> "Params":
        """The checkpoint's parameters on the mesh."""
        return self._restored[0]

    @property
    def step(self) -> int:
        """The checkpoint's."""
        return self._restored[1]

    @functools.cached_property
    def _restored(self) -> "tuple[Params, int]":
        from switchx.training.checkpoints import restore_params

        self.check_model()
        split, directory = self.config.run.mesh.fully_sharded, self.config.model_dir
        return restore_params(self.model, directory, self.mesh, self._step, split)

    def check_model(self) -> None:
        """Raises UserError where its checkpoint is not there, or of another model or vocabulary."""
        from switchx import data
        from switchx.training.checkpoints.reading import saved_step
        from switchx.training.checkpoints.refusals import check_model
        from switchx.training.checks import check_vocabulary

        config, model = self.config.data, self.config.run.model
        check_model(model, self.config.model_dir, data.vocabulary_digest(config))
        saved_step(self.config.model_dir, self._step)
        check_vocabulary(model.vocab_size, data.vocabulary_size(config))

    def encode(self, text: str) -> list[int]:
        """Encoder tokens of a text, whose blanks are <extra_id_0>, ... or __.

        Raises:
          UserError: it is longer than the model's inputs, or its blanks cannot be read.
        """
        from switchx.inference import to_tokens

        tokens, limit = to_tokens(utf8_text(text), self.vocabulary), self._lengths["inputs"]
        if len(tokens) > limit:
            raise UserError(
                f"a text of {len(tokens)} tokens with the end of sequence is longer than "
                f"TASK_FEATURE_LENGTHS['inputs']={limit}, which the model takes: shorten it."
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens up to the end of sequence.

        Raises:
          UserError: one is none of the model's.
        """
        found, size = as_python(listed("tokens", tokens)), self.config.run.model.vocab_size
        for token in found:
            if not is_whole(token) or not 0 <= token < size:
                raise UserError(
                    f"tokens hold {token!r}: give whole numbers from 0 to {size - 1}, as "
                    "ModelConfig.vocab_size has them."
                )
        return self.vocabulary.decode(found)

    def decoding(self, **choices: Any) -> "DecodingConfig":
        """How to find answers, with the defaults that follow from the run.

        An encoder alone has no more to choose than its batch_size.

        Args:
          choices: fields of `switchx.inference.DecodingConfig`; temperature, top_k and top_p.

        Raises:
          UserError: there is none of that name, one is out of range, or batch_size is no multiple
            of what the mesh needs.
        """
        from switchx.inference import DecodingConfig, Sampling
        from switchx.inference.config import check_used
        from switchx.sharding import batch_shards

        choices = {name: as_python(value) for name, value in choices.items()}
        check_used(choices.get("method", "greedy"), choices)
        for name, value in choices.items() if self._encoder_alone else ():
            if name != "batch_size" and (name, value) != ("method", "greedy"):
                flag = "max_length" if name == "length" else name
                raise UserError(
                    f"--{flag}={value} is for what a decoder writes, and {ENCODER_ALONE} finds one "
                    "token for each blank, in one pass: leave it out."
                )
        shards = batch_shards(self.mesh)
        names = [field.name for field in dataclasses.fields(Sampling)]
        sampling = Sampling(**{name: choices.pop(name) for name in names if name in choices})
        defaults = {"length": self._lengths["targets"], "batch_size": _up_to(8, shards)}
        decoding = DecodingConfig(sampling=sampling, **{**defaults, **choices})
        if decoding.batch_size % shards:
            axes = ("replica", "data", "expert")
            product = " and ".join(f"MESH_{axis.upper()}={self.mesh.shape[axis]}" for axis in axes)
            raise UserError(
                f"--batch_size={decoding.batch_size} must be a multiple of {shards}, the product "
                f"of {product}."
            )
        return decoding

    def answer(self, texts: Sequence[str], **choices: Any) -> "list[Answer]":
        """Fills the blanks of texts: see `switchx.inference.Answer`.

        Args:
          choices: as of `decoding`, such as method="beam".
        """
        return list(self.answers(listed("texts", texts), self.decoding(**choices)))

    def answers(
        self,
        texts: Sequence[str],
        decoding: "DecodingConfig",
        encoded: Sequence[Sequence[int]] | None = None,
    ) -> "Iterator[Answer]":
        """The same one after the other, a batch at a time.

        Args:
          encoded: the texts' tokens (`encode`), where they are known.
        """
        from switchx.inference import answer

        rows = [self.encode(text) for text in texts] if encoded is None else encoded
        for text, tokens in zip(texts, self.predict(rows, decoding), strict=True):
            yield answer(text, tokens, self.vocabulary)

    def predict(
        self, encoded: Sequence[Sequence[int]], decoding: "DecodingConfig"
    ) -> Iterator[list[int]]:
        """The tokens of each answer to encoder tokens, a batch at a time."""
        from switchx.inference import predict, predict_masks
        from switchx.sharding import in_force

        model, params, limit = self.model, self.params, self._lengths["inputs"]
        if self._encoder_alone:
            size = decoding.batch_size
            found = predict_masks(model, params, encoded, self.vocabulary, size)
        else:
            found = predict(model, params, encoded, decoding, limit, self.vocabulary.eos_id)
        for _ in encoded:
            with in_force(self.mesh):  # and not while the caller has his turn
                tokens = next(found)
            yield tokens

    def score(self, texts: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """How probable an answer to each text is.

        Args:
          targets: as the model would write them: "<extra_id_0> number <extra_id_1> None".

        Returns:
          float32 [B]: natural logarithms, each summed over the target's tokens and its end; of an
          encoder alone over the tokens in the blanks, all masked at once.
        """
        from switchx import inference
        from switchx.sharding import in_force

        texts, targets = listed("texts", texts), listed("targets", targets)
        if not texts and not targets:
            return np.zeros(0, np.float32)
        encoder_token_BM, target_token_BL = self._batch(texts, targets)
        with in_force(self.mesh):
            scores_B = inference.score(self.model, self.params, encoder_token_BM, target_token_BL)
        return np.asarray(scores_B)[: len(texts)]

    def logits(self, text: str, target: str = "") -> np.ndarray:
        """What the model expects at each position of a target, given those before it.

        Returns:
          float32 [L, V]: row i is over the target's token i; L counts its end of sequence. Of an
          encoder alone L are the text's tokens, its blanks as long as the target has them.
        """
        from switchx import inference
        from switchx.sharding import in_force

        encoder_token_BM, target_token_BL = self._batch([text], [target])
        with in_force(self.mesh):
            logits_BLV = inference.logits(
                self.model, self.params, encoder_token_BM, target_token_BL
            )
        return np.asarray(logits_BLV)[0, target_token_BL[0] > 0]

    def routing(self, text: str, target: str = "") -> "list[LayerRouting]":
        """Where each token of a text, and of a target, goes in each layer of experts.

        Args:
          target: as of `score`.

        Raises:
          UserError: the model is dense.
        """
        from switchx import inference
        from switchx.sharding import in_force
        from switchx.training.metrics import layer_names

        encoder_token_BM, target_token_BL = self._batch([text], [target])
        with in_force(self.mesh):
            found = inference.routing(self.model, self.params, encoder_token_BM, target_token_BL)
        layers: list[LayerRouting] = []
        names = layer_names(self.config.run.model)
        for choices, token_BL in zip(found, (encoder_token_BM, target_token_BL), strict=True):
            real_L = token_BL[0] > 0
            for layer in zip(*(array_NBLJ[:, 0, real_L] for array_NBLJ in choices), strict=True):
                layers.append(LayerRouting(names[len(layers)], *layer))
        return layers

    def evaluate(self) -> dict[str, Any]:
        """Scalars on the validation split, as in metrics.jsonl: on all of it unless opened with
        EVAL_STEPS.

        "examples" says how many were read, each once, "examples_in_split" of how many where that
        is known, and "whole_split" whether those were all. With EVAL_EACH_TASK, "tasks" holds the
        same of each task of a mixture by name. "scores" holds, of each task with metrics of
        its own, what they say of the model's answers; "said", lines on what they do not.
        """
        from switchx import evaluation
        from switchx.api.scoring import measures

        self.check_model()
        config = self.config
        return evaluation.evaluate(
            config.run, config.model_dir, step=self._step, **measures(config, config.model_dir)
        )

    def ablate(self) -> dict[str, Any]:
        """The validation loss, and what it is with each part of the model taken out in turn, its
        last matrix set to zero: each layer's attentions and feed-forward or experts, each stack's
        feed-forwards, all experts.

        Reads what `evaluate` reads, once for each part. "loss" is the whole model's; "parts" has
        "part", "loss" and "nats", the loss above the whole model's.
        """
        from switchx import data, evaluation

        self.check_model()
        data.preflight(self.config.data, ["validation"])
        whole = dataclasses.replace(self.config.data, eval_batches=None)
        return evaluation.ablate(
            self.config.run,
            self.config.model_dir,
            functools.partial(data.eval_batches, whole),
            self._step,
            self.config.data.eval_batches,
            data.num_examples(whole),
        )

    def inspect(
        self,
        texts: Sequence[str | Path] = (),
        tasks: Sequence[str] = (),
        earlier: int | None = None,
    ) -> dict[str, Any]:
        """What the experts do with texts, as numbers: what `switchx inspect` shows, unrounded.

        Args:
          texts: paths of plain text, each a source of its own.
          tasks: names of tasks or mixtures, whose validation split is read. Without either, each
            task of the run's own mixture, or its task.
          earlier: the step of a checkpoint to compare with; None is those there are.

        Returns:
          What docs/inspect.md describes.
        """
        from switchx import evaluation
        from switchx.api.inspecting import sources

        earlier = step_number("earlier", earlier)
        self.check_model()
        return evaluation.inspect(
            self.config.run,
            self.config.model_dir,
            sources(self.config, listed_strs("texts", texts), listed_strs("tasks", tasks)),
            self.vocabulary,
            self._step,
            earlier,
        )

    @property
    def _encoder_alone(self) -> bool:
        return self.config.run.model.encoder_alone

    @property
    def _lengths(self) -> dict[str, int]:
        return dict(self.config.data.feature_lengths)

    def _batch(self, texts: Sequence[str], targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of pairs, padded to a number of rows that the mesh can share out."""
        from switchx.inference import in_place
        from switchx.inference.prediction import pad
        from switchx.sharding import batch_shards

        if len(texts) != len(targets):
            raise UserError(
                f"texts are {len(texts)} and targets {len(targets)}: give each text a target."
            )
        rows = _up_to(len(texts), batch_shards(self.mesh))
        eos, encode = self.vocabulary.eos_id, self.vocabulary.encode_blanks
        wanted = [[*encode(utf8_text(target)), eos] for target in targets]
        inputs = list(map(self.encode, texts))
        if self._encoder_alone:
            pairs = zip(inputs, wanted, strict=True)
            both = [in_place(tokens, target, self.vocabulary) for tokens, target in pairs]
            inputs, wanted = [masked for masked, _ in both], [filled for _, filled in both]
        longest = max(map(len, wanted))
        limit = max(map(len, inputs)) if self._encoder_alone else self._lengths["inputs"]
        return pad(inputs, rows, limit), pad(wanted, rows, longest)


def _up_to(count: int, part: int) -> int:
    """The least multiple of a part that is no less."""
    return -(-count // part) * part
