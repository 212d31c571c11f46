"""Public training steps on TPUs: what they compute and move, for the cost model of a step's time.

recipes.json holds shapes, batches, meshes and what was published, each with its source.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from switchx.planning.chips import Chip
from switchx.planning.network import Network
from switchx.planning.program import Collective
from switchx.planning.topology import Topology, parse

HERE = Path(__file__).parent
TOKENS = 8192  # of a program: its time is taken to be in proportion
LOGITS = (4096, 8192, 32000)  # tokens, d_model, vocabulary of one program for all
STATE_BYTES = 28  # of a parameter: AdamW reads and writes three arrays, reads the gradient
NAMES = {"attention": ("qkv", "context", "out"), "feed_forward": ("wi", "wo"), "experts": ("wi",)}


@dataclasses.dataclass(frozen=True)
class Part:
    """One program.

    Attributes:
      chip: its kind.
      kind: "attention", "feed_forward", "experts" or "logits".
      tokens: of the chip; for experts of all of them together.
      sizes: of `attention` d_model, heads, kv_heads, d_head, and with low ranks those of queries
        and of keys and values, and the dimensions with positions; of `feed_forward` d_model, d_ff
        and whether it is gated (1 or 0); of `experts` these and how many experts; of `logits`
        d_model and vocabulary.
      saved: names of the products that the backward pass does not compute again.
    """

    chip: str
    kind: str
    tokens: int
    sizes: tuple[int, ...]
    saved: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A decoder's shape.

    Attributes:
      windowed, window: layers whose attention reaches no further back than so many tokens.
      experts, top_k, shared_d_ff: of a layer's experts, and the width of the one that all use.
      dense_layers, dense_d_ff: layers without experts where others have some.
      q_rank, kv_rank, d_rope: of low-rank attention.
    """

    d_model: int
    d_ff: int
    layers: int
    heads: int
    kv_heads: int
    d_head: int
    vocab: int
    gated: bool = True
    window: int = 0
    windowed: int = 0
    experts: int = 0
    top_k: int = 0
    shared_d_ff: int = 0
    dense_layers: int = 0
    dense_d_ff: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    d_rope: int = 0

    @property
    def sparse_layers(self) -> int:
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def feed_forwards(self) -> list[tuple[int, int]]:
        """How many dense ones there are, and how wide."""
        if not self.experts:
            return [(self.layers, self.d_ff)]
        both = [(self.dense_layers, self.dense_d_ff), (self.sparse_layers, self.shared_d_ff)]
        return [(number, width) for number, width in both if number and width]

    @property
    def attention(self) -> int:
        """Parameters of a layer's projections."""
        inner = self.heads * self.d_head
        if not self.q_rank:
            return self.d_model * (2 * inner + 2 * self.kv_heads * self.d_head)
        q = self.q_rank * (self.d_model + inner + self.heads * self.d_rope)
        kv = self.d_model * (self.kv_rank + self.d_rope) + self.kv_rank * 2 * inner
        return q + kv + inner * self.d_model

    @property
    def of_experts(self) -> int:
        """Parameters of all layers' experts but the shared ones."""
        one = (3 if self.gated else 2) * self.d_model * self.d_ff
        return self.sparse_layers * self.experts * one

    @property
    def dense(self) -> int:
        """Parameters that every token uses, embedding excepted."""
        kernels = 3 if self.gated else 2
        feed_forwards = sum(number * kernels * width for number, width in self.feed_forwards)
        routers = self.sparse_layers * self.experts
        layers = self.layers * self.attention
        return layers + self.d_model * (feed_forwards + routers + self.vocab)

    def attended(self, length: int) -> float:
        """Tokens that one attends to on average, over all layers: causal."""
        w = self.window or length
        within = length / 2 if w >= length else w - w * w / (2 * length)
        return (self.layers - self.windowed) * length / 2 + self.windowed * within


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A published step.

    Attributes:
      sequences, length: of a chip and step.
      saved: products that the backward pass does not compute again.
      seconds: of a step, as published; 0 where only `tflops` was.
      tflops: TFLOP/s of a chip as published, by the count that the source then made.
      fused: whether attention's backward kernel is one.
      capacity: of experts with slots; 0 where no token is dropped.
      tensor, expert_shards: chips that share a layer's widths, and its experts.
      vocab_tiles: whether logits are computed again in the backward pass, a part at a time.
    """

    name: str
    model: str
    topology: str
    sequences: float
    length: int
    saved: tuple[str, ...]
    source: str
    seconds: float = 0.0
    tflops: float = 0.0
    fused: bool = False
    capacity: float = 0.0
    tensor: int = 1
    expert_shards: int = 1
    vocab_tiles: bool = False
    shape: Model = dataclasses.field(kw_only=True)

    @property
    def tokens(self) -> int:
        return round(self.sequences * self.length)

    @property
    def slice(self) -> Topology:
        return parse(self.topology)

    @property
    def chip(self) -> Chip:
        chip = self.slice.chip
        assert chip is not None
        return chip

    @property
    def model_flops(self) -> float:
        """Of a chip: thrice the forward pass's products, causal attention halved."""
        m = self.shape
        active = m.dense + m.of_experts * m.top_k / max(m.experts, 1)
        return 6 * self.tokens * (active + 2 * m.attended(self.length) * self.width)

    @property
    def width(self) -> float:
        """Of attention's products: the mean of keys' and values'."""
        return self.shape.heads * (self.shape.d_head + self.shape.d_rope / 2)

    @property
    def published(self) -> float:
        """Seconds of a step. MaxText's counts were of whole attention until its PR 1988."""
        if self.seconds:
            return self.seconds
        m = self.shape
        rest = m.layers * self.length - m.attended(self.length)
        return (self.model_flops + 12 * self.tokens * rest * self.width) / self.tflops / 1e12

    @property
    def kernel_flops(self) -> float:
        """Of attention's kernels: two products there, again unless saved, five or seven back."""
        forward = 4 * self.tokens * self.shape.attended(self.length) * self.width
        again = 0 if "context" in self.saved else 1
        return forward * (1 + again + (2.5 if self.fused else 3.5))

    def parts(self) -> Iterator[tuple[float, Part]]:
        """The chip's programs, each with how often it runs, or how much longer it takes."""
        m, tokens = self.shape, self.tokens * self.tensor
        ranks = (m.q_rank, m.kv_rank, m.d_rope) if m.q_rank else ()
        sizes = (m.d_model, m.heads // self.tensor, max(1, m.kv_heads // self.tensor), m.d_head)
        yield self._part("attention", m.layers, tokens, (*sizes, *ranks))
        for number, width in m.feed_forwards:
            sizes = (m.d_model, width // self.tensor, int(m.gated))
            yield self._part("feed_forward", number, tokens, sizes)
        if m.experts:
            held = m.experts // self.expert_shards
            chosen = round(tokens * m.top_k * (self.capacity or 1))
            sizes = (m.d_model, m.d_ff // self.tensor, int(m.gated), held)
            yield self._part("experts", m.sparse_layers, chosen, sizes)
        saved = () if self.vocab_tiles else ("logits",)
        part = Part(self.chip.name, "logits", LOGITS[0], LOGITS[1:], saved)
        yield tokens * m.d_model * (m.vocab // self.tensor) / math.prod(LOGITS), part

    def _part(
        self, kind: str, number: int, tokens: int, sizes: tuple[int, ...]
    ) -> tuple[float, Part]:
        held = TOKENS
        if kind == "experts":  # each as many as it has, of at most 16 experts
            of_one = tokens // sizes[-1]
            sizes = (*sizes[:-1], min(sizes[-1], 16))
            held = min(of_one, TOKENS) * sizes[-1]
        saved = tuple(name for name in NAMES[kind] if name in self.saved)
        return number * tokens / held, Part(self.chip.name, kind, held, sizes, saved)

    @property
    def state_seconds(self) -> float:
        """Of the optimizer, whose state is fully sharded."""
        m = self.shape
        parameters = m.dense + m.of_experts + m.d_model * m.vocab
        return STATE_BYTES * parameters / self.slice.num_chips / self.chip.hbm_rate

    def network_seconds(self) -> float:
        """The least that the network needs.

        Parameters gathered for each pass, their gradients scattered; what sharing a layer's widths
        sums of activations, and experts exchange; and between slices the sums of gradients. All in
        bfloat16.
        """
        m, tensor, shards = self.shape, self.tensor, self.expert_shards
        rest = m.dense + m.d_model * m.vocab
        moved = []
        everywhere = ("data", "expert") if shards > 1 else ("data",)
        for parameters, axes in ((rest, everywhere), (m.of_experts / shards, ("data",))):
            size = 2 * parameters / tensor
            moved += [_moved("all-gather", axes, size)] * 2 + [_moved("reduce-scatter", axes, size)]
        if shards > 1:
            slots = self.tokens * m.top_k * self.capacity
            moved.append(
                _moved("all-to-all", ("expert",), 6 * m.sparse_layers * slots * m.d_model * 2)
            )
        if tensor > 1:
            passes = 4 if self.saved else 6
            size = passes * m.layers * self.tokens * tensor * m.d_model * 2
            moved.append(_moved("all-reduce", ("model",), size))
        if self.slice.slices > 1:
            held = 2 * (rest + m.of_experts) / (self.slice.num_chips / self.slice.slices)
            moved.append(_moved("all-reduce", ("replica",), held))
        network = self.network()
        return sum(sum(network.seconds([one]).values()) for one in moved)

    def network(self) -> Network:
        """Chips in order, those that share a layer's widths or experts next to each other."""
        chip, topology = self.chip, self.slice
        places = np.array(list(itertools.product(*map(range, topology.grid))))
        axes = {
            "replica": topology.slices,
            "data": len(places) // self.tensor // self.expert_shards,
        }
        axes |= {"expert": self.expert_shards, "model": self.tensor}
        return Network(
            axes,
            np.repeat(np.arange(topology.slices), len(places)),
            np.tile(places, (topology.slices, 1)),
            topology.wraps,
            chip.fabric_rate / (2 * chip.torus_axes),
            chip.network_rate or np.inf,
        )


def read() -> list[Recipe]:
    values: dict[str, Any] = json.loads((HERE / "recipes.json").read_text())
    models = {name: Model(**shape) for name, shape in values["models"].items()}
    return [
        Recipe(**{**each, "saved": tuple(each["saved"])}, shape=models[each["model"]])
        for each in values["recipes"]
    ]


def _moved(kind: str, axes: tuple[str, ...], size: float) -> Collective:
    return Collective(kind, "bf16", axes, 1, int(size), 0)
