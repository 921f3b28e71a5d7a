"""Keys of the encoder-decoder Transformer and of its mixture-of-experts layers."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nmt.config.presets import PRESETS, expanded
from nmt.config.routers import ROUTERS, RouterName, RouterTraits, find_traits
from nmt.config.section import Fraction, Positive, Section

# Keys of `model.moe` that have an effect only where there are slots, or where there is a gate of a shared expert.
_SLOT_KEYS = ("capacity_factor", "eval_capacity_factor", "min_capacity", "batch_prioritised")
_GATE_KEYS = ("gated_dropout", "gated_budget", "gated_weight")
# Those that have an effect with some kinds of routing only.
_ROUTER_KEYS = tuple(dict.fromkeys(key for kind in ROUTERS.values() for key in kind.keys))

if TYPE_CHECKING:
    PresetName = str
else:
    PresetName = Literal[tuple(PRESETS)]


class MoEConfig(Section):
    """The mixture-of-experts layers: routing, capacity, losses and the experts themselves (docs/moe.md)."""

    preset: PresetName = Field(
        "gshard", description="The paper whose conventions the keys below take, where they are not given themselves."
    )
    experts: Positive = Field(8, description="Experts in a mixture-of-experts layer (E).")
    every: Positive = Field(2, description="Every n-th layer of encoder and decoder has experts; the others are dense.")
    offset: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Number of the layer with experts among every n layers, counted from 0; null: the last."
    )
    routing: RouterName = Field(
        "token_choice",
        description="Tokens choose experts by a learnt router; experts choose tokens (encoder only); a hash of the "
        "token decides; or tokens choose, and biases of the experts keep the load even without an auxiliary loss.",
    )
    decoder_routing: RouterName | None = Field(None, description="Routing of the decoder's layers; null: as routing.")
    top_k: Positive = Field(2, description="Experts that a token chooses (K): 1 is Switch, 2 is GShard.")
    normalise: Literal["before", "after", "none"] = Field(
        "before",
        description="Gates of a token are normalised to sum to one before choices are dropped, after, or not at all; "
        "with top_k=1 always none, for a gate of one would teach the router nothing.",
    )
    second_expert: Literal["random", "all"] = Field(
        "random", description="Choices after the first: kept with probability gate/threshold, or all."
    )
    second_threshold: float = Field(
        0.5,
        gt=0.0,
        description="Normalised gate from which a later choice is always kept; 0.5 is the paper's 2*g2 > rnd.",
    )
    capacity_factor: float = Field(
        2.0, ge=0.0, description="Slots of an expert in training, as a multiple of N/E; GShard's 2N/E is 2.0."
    )
    eval_capacity_factor: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="The same for the development loss; null: nothing is dropped. Translation never drops a token.",
    )
    min_capacity: int = Field(4, ge=0, description="Fewest slots that an expert has for a group.")
    group_size: Positive | None = Field(
        None, description="Tokens in a group (N), routed on their own; null: a batch is one group."
    )
    batch_prioritised: bool = Field(
        False,
        description="Slots go to the tokens with the greatest gates first; in the encoder only, since in a decoder "
        "tokens to come would go first.",
    )
    balance_weight: float = Field(
        0.01,
        ge=0.0,
        description="Coefficient of the load-balancing loss E * sum_e f_e P_e, mean over groups.",
    )
    balance_reduction: Literal["mean", "sum"] = Field(
        "mean", description="The load-balancing losses of the layers are averaged, or added up (Lingvo, fairseq)."
    )
    balance_choices: Literal["first", "all"] = Field(
        "first",
        description="f_e is the share of tokens whose first choice is e, or e's share of all K choices (Flaxformer, "
        "MaxText, MegaBlocks).",
    )
    affinity: Literal["softmax", "sigmoid"] = Field(
        "sigmoid",
        description="Affinity of a token to an expert with routing=bias_balanced: the softmax of its logits, or the "
        "sigmoid of each (DeepSeek-V3).",
    )
    bias_rate: float = Field(
        0.001,
        ge=0.0,
        description="How far the bias of an expert moves after every step with routing=bias_balanced: up if its load "
        "was below the mean, down if above (DeepSeek-V3: 0.001).",
    )
    sequence_balance_weight: float = Field(
        0.0,
        ge=0.0,
        description="Coefficient of the load-balancing loss of single rows with routing=bias_balanced; DeepSeek-V3 has "
        "0.0001.",
    )
    z_weight: float = Field(
        0.0, ge=0.0, description="Coefficient of the router z-loss, mean over layers and tokens; ST-MoE has 0.001."
    )
    jitter: Fraction = Field(
        0.0, description="The router's input is multiplied by uniform noise in 1 +- this, in training; Switch has 0.01."
    )
    router_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of the router; bfloat16 is there for comparison: gates tie, and training suffers."
    )
    router_init_scale: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="Factor on the variance of the router's first weights, as init_scale is of all; null: init_scale. "
        "Switch has 0.1.",
    )
    expert_dropout: Fraction = Field(0.0, description="Dropout on the hidden units of experts.")
    output_masking: Fraction = Field(
        0.0,
        description="Probability with which an expert's output is masked for a token in training; outputs are scaled "
        "by the rest of it otherwise (NLLB's expert output masking).",
    )
    gating_dropout: Fraction = Field(
        0.0, description="Probability with which all sparse layers of a stack pass their tokens by for a whole step."
    )
    shared: Literal["none", "add", "gated"] = Field(
        "none",
        description="An expert that all tokens go to, beside the routed ones: its output is added, or a learnt gate "
        "weighs the two (NLLB's conditional MoE routing).",
    )
    shared_hidden: Positive | None = Field(
        None, description="Hidden width of the shared expert; null: that of a dense layer."
    )
    gated_dropout: Fraction = Field(
        0.0, description="Probability with which a token's gate is closed to the routed experts, with shared=gated."
    )
    gated_budget: Fraction = Field(
        0.8, description="Share of their weight that tokens are to give to the routed experts, with shared=gated."
    )
    gated_weight: float = Field(
        0.1, ge=0.0, description="Coefficient of the distance between that share and the budget, mean over layers."
    )
    extra_dense: bool = Field(False, description="A dense feed-forward layer after each sparse one, as ST-MoE has.")
    dispatch: Literal["scatter", "einsum", "grouped"] = Field(
        "scatter",
        description="How tokens move to their experts in training; einsum is GShard's one-hot reference, grouped has "
        "no slots and drops no token.",
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        return expanded(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _offset_is_one_of_every(self) -> Self:
        if self.offset is not None and self.offset >= self.every:
            raise ValueError(f"moe.offset={self.offset} is not below moe.every={self.every}")
        return self

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if self.top_k > max(self.experts, 2):
            raise ValueError(f"moe.top_k={self.top_k} is more than moe.experts={self.experts}")
        return self

    @model_validator(mode="after")
    def _router_has_a_gradient(self) -> Self:
        if self.top_k == 1 and self.normalise != "none" and any(kind.normalises for kind in self._kinds):
            raise ValueError(
                f"moe.normalise={self.normalise} with moe.top_k=1 makes every gate one, so that the router learns "
                "nothing from the translations; set moe.normalise=none, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _decoder_cannot_look_ahead(self) -> Self:
        kind = self.routing_kind(decoder=True)
        if ROUTERS[kind].looks_ahead:
            key = "routing" if self.decoder_routing is None else "decoder_routing"
            raise ValueError(
                f"moe.{key}={kind} cannot be used in a decoder: whether an expert takes a token would depend "
                "on the tokens after it, which are not there yet when translating; set moe.decoder_routing=token_choice"
            )
        return self

    def routing_kind(self, decoder: bool) -> str:
        """Return the kind of routing of the encoder's or of the decoder's layers."""
        return (self.decoder_routing if decoder else None) or self.routing

    @property
    def _kinds(self) -> list[RouterTraits]:
        return find_traits(self.routing, self.routing_kind(decoder=True))

    def without_effect(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Yield the keys that have a value of their own and no effect.

        Yields:
          The key, the keys beside it that take its effect away, and why, in words. A value that the preset or the
          schema has is not counted as the key's own.
        """
        routing = ("routing", "decoder_routing")
        kinds = " and ".join(dict.fromkeys((self.routing, self.routing_kind(decoder=True))))
        used = {key for kind in self._kinds for key in kind.keys}
        unused = [key for key in _ROUTER_KEYS if key not in used]
        reasons: list[tuple[bool, tuple[str, ...], str, Sequence[str]]] = [
            (True, routing, f"routing {kinds} does not use it", unused),
            (
                self.dispatch == "grouped" and not any(kind.needs_slots for kind in self._kinds),
                ("dispatch", *routing),
                "dispatch=grouped has no slots, and drops no token",
                _SLOT_KEYS,
            ),
            (self.shared != "gated", ("shared",), "there is a gate with shared=gated only", _GATE_KEYS),
            (self.shared == "none", ("shared",), "with shared=none there is no shared expert", ("shared_hidden",)),
        ]
        usual = MoEConfig(preset=self.preset)
        for applies, because, why, keys in reasons:
            if applies:
                own = (key for key in keys if getattr(self, key) != getattr(usual, key))
                yield from ((key, because, why) for key in own)

    @property
    def sparse_layer(self) -> int:
        """The number of the sparse layer within each block of `every` layers, counted from 0."""
        return self.every - 1 if self.offset is None else self.offset

    def sparse_layers(self, layers: int) -> tuple[int, ...]:
        """Return the numbers of the sparse layers among so many, counted from 0."""
        return tuple(range(self.sparse_layer, layers, self.every))


class ModelConfig(Section):
    """The encoder-decoder Transformer."""

    width: Positive = Field(256, description="Model width (M).")
    hidden: Positive = Field(1024, description="Hidden width of a feed-forward layer and of one expert (H).")
    heads: Positive = Field(4, description="Attention heads (A).")
    head_width: Positive = Field(64, description="Width of one head (D); heads * head_width may differ from the width.")
    encoder_layers: Positive = Field(4, description="Encoder layers.")
    decoder_layers: Positive = Field(4, description="Decoder layers.")
    norm: Literal["rmsnorm", "layernorm"] = Field(
        "rmsnorm", description="Normalisation before every sublayer and at the end of a stack."
    )
    norm_epsilon: float = Field(1e-6, gt=0.0, description="Added to the variance in normalisation.")
    activation: Literal["relu", "gelu", "geglu", "swiglu"] = Field(
        "relu",
        description="Activation of feed-forward layers and experts. geglu and swiglu have a second input projection, "
        "of `hidden` units too; geglu takes the tanh form of GELU, as T5 1.1 does, and gelu the exact one.",
    )
    bias: bool = Field(False, description="Biases in attention, feed-forward layers and experts.")
    positions: Literal["sinusoidal", "sinusoidal_interleaved", "learned", "relative", "rotary"] = Field(
        "sinusoidal",
        description="Sines in one half and cosines in the other (Tensor2Tensor, NLLB), interleaved (Vaswani et al.), a "
        "learnt table, T5's relative buckets, or rotary.",
    )
    max_positions: Positive = Field(1024, description="Rows of a learnt table of positions: the longest sequence.")
    relative_buckets: int = Field(32, ge=4, multiple_of=2, description="Buckets of relative positions (T5).")
    relative_distance: Positive = Field(128, description="Distance from which all share the last bucket (T5).")
    embeddings: Literal["shared", "separate"] = Field(
        "shared", description="One table for source and target tokens, or one each, as separate vocabularies need."
    )
    tie_output: bool = Field(True, description="The output layer is the target embedding again.")
    embedding_scale: bool = Field(
        True, description="Embeddings are N(0, 1/M) at first and multiplied by sqrt(M); else N(0, 1)."
    )
    output_scale: bool = Field(False, description="Decoder outputs are multiplied by 1/sqrt(M) before the logits.")
    init: Literal["uniform", "truncated_normal", "xavier"] = Field(
        "uniform",
        description="First weights: uniform by fan-in (Lingvo's GShard), truncated normal by fan-in (Switch, T5), or "
        "uniform by fan-in and fan-out (fairseq).",
    )
    init_scale: float = Field(
        1.0, gt=0.0, description="Factor on the variance of the first weights; Switch has 0.1 with truncated_normal."
    )
    dropout: Fraction = Field(0.1, description="Dropout on embeddings, residuals and feed-forward hidden units.")
    attention_dropout: Fraction = Field(0.0, description="Dropout on attention weights.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Input type of matrix products; sums stay float32; "
        "auto: bfloat16 where the machine multiplies it natively.",
    )
    activation_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Type of the hidden states between layers and of the inputs of experts; norms, softmax and router "
        "stay float32 (Switch's selective precision).",
    )
    parameter_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Type of the weights and their gradients; bfloat16 halves their memory, and updates are rounded at "
        "random then, so that small ones count. The optimizer and the moving average stay float32.",
    )
    remat: Literal["none", "full", "local", "dots", "moe", "offload_moe"] = Field(
        "none",
        description="Values that the backward pass recomputes instead of keeping. none: nothing; full: the whole "
        "layer; local: all but the inputs and outputs of experts, which are communicated; dots: all but products with "
        "weights; moe: those between the router and the experts' output; offload_moe: as moe, but kept in host memory.",
    )
    moe: MoEConfig | None = Field(MoEConfig(), description="Mixture-of-experts layers; null: a dense model.")

    @property
    def sparse_layers(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the layers that have experts, by stack, counted from 0; stacks without any left out."""
        stacks = {"encoder": self.encoder_layers, "decoder": self.decoder_layers}
        found = {stack: self.moe.sparse_layers(layers) for stack, layers in stacks.items()} if self.moe else {}
        return {stack: numbers for stack, numbers in found.items() if numbers}

    @model_validator(mode="after")
    def _some_layer_has_experts(self) -> Self:
        most = max(self.encoder_layers, self.decoder_layers)
        if self.moe is not None and self.moe.sparse_layer >= most:
            raise ValueError(
                f"no layer has experts: the first that moe.every={self.moe.every} gives them to is number "
                f"{self.moe.sparse_layer + 1}, and there are {most}; lower model.moe.every, or set model.moe=null"
            )
        return self

    @model_validator(mode="after")
    def _heads_can_turn(self) -> Self:
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"model.positions=rotary needs an even head_width (not {self.head_width})")
        return self

    @model_validator(mode="after")
    def _buckets_end_before_the_distance(self) -> Self:
        if self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"model.relative_distance={self.relative_distance} is to be more than half of "
                f"model.relative_buckets={self.relative_buckets}: that many distances have a bucket of their own"
            )
        return self
