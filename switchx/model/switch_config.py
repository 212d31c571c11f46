"""What the layers with experts are: the part of a model's configuration that a dense one lacks."""

import dataclasses
from fractions import Fraction

from switchx.checks import above_zero, at_least, below_one, from_zero, one_of
from switchx.errors import UserError
from switchx.model.checks import only, sparse_layers, widths
from switchx.model.dispatch import DISPATCHERS
from switchx.model.routing import (
    EXPLORATIONS,
    LOSS_OVER,
    POLICIES,
    PRIORITIES,
    SECOND_POLICIES,
    Balance,
    Exploration,
    Policy,
    TokensChoose,
)
from switchx.model.shape import Sparse

DTYPES = ("float32", "bfloat16")
GROUP_PADDING = ("none", "flaxformer")
BALANCE_BY = ("tokens", "cost")
EXPERTS_IN = ("feed_forward", "attention", "both")


@dataclasses.dataclass(frozen=True)
class SwitchConfig:
    """The mixture-of-experts feed-forward layers (Switch Transformers, JMLR 2022, section 2).

    Attributes:
      num_experts: experts per switch layer (macro NUM_EXPERTS).
      expert_widths: experts of several widths, as pairs of a number of experts and their d_ff, in
        the order of the experts' numbers: ((6, 256), (2, 1024)) are 8 experts. None: all have the
        model's d_ff.
      every: every n-th layer of each stack has experts, counted as the released models do: 2
        gives layers 1, 3, 5, ...; 4 gives 3, 7, 11, ... (ST-MoE); 1 gives all of them. Layers
        beyond the last whole period are dense.
      top_k: experts per token. 1 is the Switch layer, its gate not renormalised (eq. 2); with
        more, a token's gates are divided by their sum, as in the paper's MoE baseline.
      train_capacity_factor: slots per expert and group while training, as a multiple of an
        equal share of the group's tokens (eq. 3).
      eval_capacity_factor: the same for evaluation.
      min_capacity: least number of slots per expert and group.
      encoder_group_size: tokens per group in the encoder. Capacity and drops are decided
        within a group, so this is part of the model, whatever the mesh.
      decoder_group_size: the same in the decoder.
      exploration: what disturbs the choice while training (appendix C): "jitter" multiplies
        the router's input by U(1 - jitter, 1 + jitter); "input_dropout" drops elements of it
        at router_dropout_rate; "sample" draws experts from the router's distribution;
        "argmax" is none.
      jitter: see exploration.
      router_dropout_rate: see exploration.
      second_policy: with top_k above 1, which choices after the first are used: "always",
        "never", "threshold" (gate above second_threshold), or "random" (with probability
        gate / second_threshold; in evaluation as "threshold").
      second_threshold: see second_policy; the original code's 0.2.
      priority: who takes an expert's slots first in the encoder: "sequence", or "gate", the
        tokens with the likeliest first choice (batch-prioritised routing). The decoder always
        goes by sequence, since a later token must not take an earlier one's room.
      reroute_rounds: No-Token-Left-Behind (appendix B): how many times the tokens that found
        their expert full try their next choice. In the encoder only: the room that is left
        depends on later tokens.
      encoder_routing: "tokens_choose", or "experts_choose" (Zhou et al. 2022): each expert takes
        the tokens likeliest for it. The decoder's tokens always choose.
      balance_loss_weight: alpha of eq. 4; the losses of all layers are summed.
      balance_by: what experts of several widths should have as much of: "tokens", eq. 4 as it is;
        or "cost", with the load of each weighted by its width (HMoE, Wang et al. 2024), so that
        tokens prefer narrow experts. Capacity is shared out alike, see `token_shares`.
      balance_loss_over: whose loads the loss is of: "group", each group's own, as in the paper; or
        "batch", all devices' and microbatches' (Qiu et al. 2025), where a group may be of one kind
        and the batch of all (macro BALANCE_LOSS_OVER). With microbatches their choices are made
        once before.
      balance_bias: above 0, each expert has a bias for its choice alone, which every step moves so
        far, in nats, up where the expert had less than the mean of the batch and down where more
        (Wang et al. 2024); routing/balance.py (macro BALANCE_BIAS).
      balance_quantile: above 0, that bias is moved by this share of what would have given each
        expert its share of the batch, 1 being all of it (macro BALANCE_QUANTILE).
      router_z_loss_weight: weight of ST-MoE's router z-loss, summed over layers.
      router_init_scale: of the routers' initializers; None means the model's init_scale. With more,
        gates begin nearer to 1 and a token's choice changes less while the router learns.
      expert_dropout_rate: dropout inside experts; None means the model's rate.
      dispatcher: how tokens reach their experts: "index" or "einsum", which fill each expert's
        capacity and agree ("index" does no more FLOPs than the slots need; "einsum", one-hot
        products, suits TPUs with groups of a few hundred tokens); or "ragged", which has no
        capacity and drops nothing, unless there are ragged_pools.
      ragged_pools: with the dispatcher "ragged", into how many pools the experts are divided, each
        of the next num_experts / ragged_pools. Those of a pool share slots, as many per group as
        they would have one by one, and the choices beyond these are dropped (macro RAGGED_POOLS).
        MESH_EXPERT must divide it. None: no slots, which takes room for all rows of all devices
        where experts are on many.
      extra_dense: whether a dense feed-forward follows each one that has experts (ST-MoE).
      experts_in: what has experts in a sparse layer: "feed_forward"; "attention", whose queries,
        keys and values then come from experts (appendix A); or "both".
      attention_dtype: of the products of experts in attention, "float32" or "bfloat16"; in the
        latter the paper's diverge (Table 10).
      encoder_sparse, decoder_sparse: which layers of that stack have experts, where `every` does
        not say it: a number n, every n-th; or their numbers from 0, as in (0, 1, 5); () is none.
      group_padding: "none": padding is not routed, and a batch that does not divide into groups is
        refused; "flaxformer", for models that T5X trained: as there, groups are filled up with
        zeros to a multiple of the experts, and padding takes slots (flaxformer_groups.py). While
        decoding nothing is dropped in either case.
    """

    num_experts: int
    every: int = 2
    top_k: int = 1
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float = 2.0
    min_capacity: int = 4
    encoder_group_size: int = 4096
    decoder_group_size: int = 912
    exploration: str = "jitter"
    jitter: float = 1e-2
    router_dropout_rate: float = 0.1
    second_policy: str = "always"
    second_threshold: float = 0.2
    priority: str = "sequence"
    reroute_rounds: int = 0
    encoder_routing: str = "tokens_choose"
    balance_loss_weight: float = 1e-2
    balance_loss_over: str = "group"
    balance_bias: float = 0.0
    balance_quantile: float = 0.0
    router_z_loss_weight: float = 0.0
    router_init_scale: float | None = None
    expert_dropout_rate: float | None = None
    dispatcher: str = "index"
    ragged_pools: int | None = None
    extra_dense: bool = False
    experts_in: str = "feed_forward"
    attention_dtype: str = "float32"
    encoder_sparse: int | tuple | None = None
    decoder_sparse: int | tuple | None = None
    group_padding: str = "none"
    expert_widths: tuple | None = None
    balance_by: str = "tokens"

    def __post_init__(self) -> None:
        at_least("NUM_EXPERTS", self.num_experts, 1)
        at_least("ENCODER_GROUP_SIZE", self.encoder_group_size, 1)
        at_least("DECODER_GROUP_SIZE", self.decoder_group_size, 1)
        for name, least in {"every": 1, "top_k": 1, "min_capacity": 1, "reroute_rounds": 0}.items():
            at_least(f"SwitchConfig.{name}", getattr(self, name), least)
        widths("SwitchConfig.expert_widths", self.expert_widths, self.num_experts)
        self._check_pools()
        sparse_layers("SwitchConfig.encoder_sparse", self.encoder_sparse)
        sparse_layers("SwitchConfig.decoder_sparse", self.decoder_sparse)
        for name, accepted in {
            "dispatcher": DISPATCHERS,
            "group_padding": GROUP_PADDING,
            "balance_by": BALANCE_BY,
            "experts_in": EXPERTS_IN,
            "attention_dtype": DTYPES,
            "exploration": EXPLORATIONS,
            "second_policy": SECOND_POLICIES,
            "priority": PRIORITIES,
            "encoder_routing": POLICIES,
            "balance_loss_over": LOSS_OVER,
            "extra_dense": (False, True),
        }.items():
            one_of(f"SwitchConfig.{name}", getattr(self, name), accepted)
        for name in ("train_capacity_factor", "eval_capacity_factor", "second_threshold"):
            above_zero(f"SwitchConfig.{name}", getattr(self, name))
        if self.router_init_scale is not None:
            above_zero("SwitchConfig.router_init_scale", self.router_init_scale)
        for name in ("balance_loss_weight", "router_z_loss_weight"):
            from_zero(f"SwitchConfig.{name}", getattr(self, name))
        below_one("SwitchConfig.jitter", self.jitter)
        below_one("SwitchConfig.router_dropout_rate", self.router_dropout_rate)
        if self.expert_dropout_rate is not None:
            below_one("EXPERT_DROPOUT_RATE", self.expert_dropout_rate)
        self._check_balance()
        self._check_together()

    def _check_together(self) -> None:
        """What makes no sense together is refused by what makes it senseless."""
        DISPATCHERS[self.dispatcher].check(self)
        for causal in (False, True):
            self.policy(causal)
        if self.expert_widths is None:
            alike = {"balance_by": "tokens"}
            only(self, "expert_widths=None", alike, "where all experts cost the same")
        else:
            elsewhere = {"experts_in": "feed_forward", "group_padding": "none"}
            given = f"expert_widths={self.expert_widths!r}"
            only(self, given, elsewhere, "which is for feed-forwards in groups of a set size")
        if not self.in_feed_forward:
            neutral = {"extra_dense": False}
            only(self, "experts_in='attention'", neutral, "where no feed-forward has experts")
        if not self.in_attention:
            unused = {"attention_dtype": "float32"}
            only(self, "experts_in='feed_forward'", unused, "where no attention has experts")

    @property
    def token_shares(self) -> tuple[tuple[int, Fraction], ...]:
        """Of each width its number of experts, and the share of the tokens that each should have.

        Where experts get so many, the balance loss would change nothing: with balance_by="tokens"
        all get as many, with "cost" as many as makes tokens times width the same of all.
        """
        by_width = self.expert_widths or ((self.num_experts, 1),)
        by_cost = self.balance_by == "cost"
        parts = [Fraction(1, width) if by_cost else Fraction(1) for _, width in by_width]
        numbers = [number for number, _ in by_width]
        whole = sum(number * part for number, part in zip(numbers, parts, strict=True))
        return tuple((number, part / whole) for number, part in zip(numbers, parts, strict=True))

    @property
    def balance_weights(self) -> tuple[float, ...] | None:
        """What each expert's load is multiplied with in the balance loss: its width, 1 on average.

        None: nothing, with balance_by="tokens".
        """
        if self.expert_widths is None or self.balance_by == "tokens":
            return None
        widths_E = [width for number, width in self.expert_widths for _ in range(number)]
        return tuple(width * self.num_experts / sum(widths_E) for width in widths_E)

    def _check_pools(self) -> None:
        if self.ragged_pools is None:
            return
        at_least("RAGGED_POOLS", self.ragged_pools, 1)
        for number, _ in self.token_shares:
            if number % self.ragged_pools:
                of = f"NUM_EXPERTS={number}"
                if self.expert_widths is not None:
                    of = f"the {number} experts of one width in {self.expert_widths!r}"
                raise UserError(
                    f"RAGGED_POOLS={self.ragged_pools} does not divide {of}: use a divisor, and of "
                    "those a multiple of MESH_EXPERT."
                )
        given = f"RAGGED_POOLS={self.ragged_pools}"
        if self.dispatcher != "ragged":
            raise UserError(
                f"{given} does not go with DISPATCHER={self.dispatcher!r}, whose experts have "
                "slots of their own: use DISPATCHER='ragged', or leave it at None."
            )
        only(self, given, {"group_padding": "none"}, "which is for groups of a set size")

    def _check_balance(self) -> None:
        for name, most in {"BALANCE_BIAS": None, "BALANCE_QUANTILE": 1.0}.items():
            from_zero(name, getattr(self, name.lower()), most)
        if self.balance_loss_over == "batch":
            by_tokens = {"balance_by": "tokens"}
            only(self, "BALANCE_LOSS_OVER='batch'", by_tokens, "whose loads are of tokens")
        if not self.biased:
            return
        name = "balance_bias" if self.balance_bias else "balance_quantile"
        given = f"{name.upper()}={getattr(self, name)}"
        only(self, given, {"balance_by": "tokens"}, "which gives each expert as many tokens")
        if self.balance_bias:
            only(self, given, {"balance_quantile": 0.0}, "which moves the same bias")
        if self.top_k >= self.num_experts:
            raise UserError(
                f"{given} balances nothing where each token uses {self.top_k} of NUM_EXPERTS="
                f"{self.num_experts}: use more experts, or leave it at 0."
            )
        if self.balance_quantile:
            all_wanted = {"second_policy": "always"}
            only(self, given, all_wanted, "which counts on every token's choices being used")
            if self.exploration == "sample":
                raise UserError(
                    f"{given} does not go with SwitchConfig.exploration='sample', whose choices "
                    "are drawn and not told by scores: use another exploration, or BALANCE_BIAS."
                )

    @property
    def dropless(self) -> bool:
        """Whether there is no capacity, and so nothing is dropped."""
        return DISPATCHERS[self.dispatcher].dropless and self.ragged_pools is None

    @property
    def biased(self) -> bool:
        """Whether routers have a bias for the choice."""
        return bool(self.balance_bias or self.balance_quantile)

    def balance(self, train: bool) -> Balance | None:
        """What layers add up over a batch; None: nothing. A loss is one in evaluation too."""
        of_batch = self.balance_loss_over == "batch"
        if not (self.biased and train) and not of_batch:
            return None
        return Balance(self.top_k, bool(self.balance_quantile) and train, of_batch)

    def sparse(self, causal: bool) -> Sparse:
        """Which layers of the encoder, or (`causal`) the decoder, have experts."""
        own = self.decoder_sparse if causal else self.encoder_sparse
        return self.every if own is None else own

    def policy(self, causal: bool) -> Policy:
        """What routes the encoder's tokens, or (`causal`) the decoder's, which always choose."""
        if causal:
            return TokensChoose.of(self, causal=True)
        return POLICIES[self.encoder_routing](self)

    @property
    def explorer(self) -> Exploration:
        """What disturbs the choice while training."""
        return EXPLORATIONS[self.exploration](self)

    @property
    def in_feed_forward(self) -> bool:
        """Whether feed-forwards have experts."""
        return self.experts_in != "attention"

    @property
    def in_attention(self) -> bool:
        """Whether self-attention has experts."""
        return self.experts_in != "feed_forward"
