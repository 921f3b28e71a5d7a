"""The frozen models of a recipe: every key, its type, its bounds, its default and its description.

`--help`, docs/configuration.md and the JSON schema for editors are generated from the descriptions below; a section is
described by its docstring.
Keys that cannot be described in one sentence do not belong here.
"""

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nmt.config.presets import expanded

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class VocabularySizes(NamedTuple):
    """Ids of the vocabulary of sources and of that of targets (V of either side)."""

    source: int
    target: int

    @classmethod
    def shared(cls, size: int) -> Self:
        """Return the sizes of one vocabulary for both sides."""
        return cls(size, size)


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class CleanConfig(Section):
    """Which pairs are kept for training, development and test sets alike."""

    min_words: Positive = Field(4, description="Fewest words of the corpus's key language (English) in a pair.")
    max_words: Positive = Field(60, description="Most words of the corpus's key language (English) in a pair.")
    max_length_ratio: float = Field(
        4.0,
        gt=1.0,
        description="Greatest ratio of UTF-8 bytes, foreign : English; its inverse is the least.",
    )
    min_letters: Fraction = Field(
        0.6, description="Least share of letters among the characters of the key language's side, spaces aside."
    )


class DataConfig(Section):
    """What is learnt from, and how it is mixed and packed."""

    corpora: tuple[str, ...] = Field(min_length=1, description="Corpora: names of data/*.yaml, or paths.")
    directions: tuple[str, ...] = Field(
        min_length=1, description="Translation directions, such as de-en; any alias of a language is understood."
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature T of the mixture: p(direction) is proportional to pairs^(1/T)."
    )
    source_length: Positive = Field(64, description="Tokens in one packed row on the source side (S).")
    target_length: Positive = Field(64, description="Tokens in one packed row on the target side (T).")
    shuffle_window: Positive = Field(8192, description="Examples among which the mixed stream is shuffled once more.")
    clean: CleanConfig = CleanConfig()


class VocabConfig(Section):
    """The SentencePiece vocabulary, shared by all languages, or one for sources and one for targets."""

    size: int = Field(8000, ge=300, description="Pieces in the vocabulary, tags and byte pieces included (V).")
    target_size: Annotated[int, Field(ge=300)] | None = Field(
        None, description="Pieces of a vocabulary of its own for the target side; null: both sides share one."
    )
    model_type: Literal["unigram", "bpe"] = Field("unigram", description="SentencePiece model type.")
    character_coverage: float = Field(
        0.9999, gt=0.9, le=1.0, description="Share of characters that get a piece of their own; bytes cover the rest."
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature over languages of the text it is learnt from."
    )
    sentences: Positive = Field(1_000_000, description="Most sentences that the vocabulary is learnt from.")

    @property
    def sizes(self) -> VocabularySizes:
        """The pieces of either side; equal where both share one vocabulary."""
        return VocabularySizes(self.size, self.size if self.target_size is None else self.target_size)


class MoEConfig(Section):
    """The mixture-of-experts layers: who goes where, and what the experts are (docs/moe.md)."""

    preset: Literal["gshard", "switch", "st_moe", "nllb"] = Field(
        "gshard", description="The paper whose conventions the keys below take, where they are not given themselves."
    )
    experts: Positive = Field(8, description="Experts in a mixture-of-experts layer (E).")
    every: Positive = Field(2, description="Every n-th layer of encoder and decoder has experts; the others are dense.")
    offset: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Which of every n layers has the experts, counted from 0; null: the last."
    )
    routing: Literal["token_choice", "expert_choice", "hash"] = Field(
        "token_choice",
        description="Tokens choose experts by a learnt router; experts choose tokens (encoder only); or a hash of the "
        "token decides.",
    )
    decoder_routing: Literal["token_choice", "expert_choice", "hash"] | None = Field(
        None, description="Routing of the decoder's layers; null: as routing."
    )
    top_k: Positive = Field(2, description="Experts that a token chooses (K): 1 is Switch, 2 is GShard.")
    normalise: Literal["before", "after", "none"] = Field(
        "before",
        description="Gates of a token are normalised to sum to one before choices are dropped, after, or not at all.",
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
        "tokens to come would have a say.",
    )
    balance_weight: float = Field(
        0.01,
        ge=0.0,
        description="Coefficient of the load-balancing loss E * sum_e f_e P_e, mean over layers and groups.",
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
    router_init_scale: float = Field(
        1.0, ge=0.0, description="Factor on the standard deviation of the router's first weights."
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
    def _decoder_cannot_look_ahead(self) -> Self:
        if self.of_decoder == "expert_choice":
            raise ValueError(
                "moe.routing=expert_choice cannot be used in a decoder: whether an expert takes a token would depend "
                "on the tokens after it, which are not there yet when translating; set moe.decoder_routing=token_choice"
            )
        return self

    @property
    def of_decoder(self) -> str:
        """The routing of the decoder's layers."""
        return self.decoder_routing or self.routing

    @property
    def sparse_layer(self) -> int:
        """Which of every `every` layers is sparse, counted from 0."""
        return self.every - 1 if self.offset is None else self.offset


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
        "relu", description="Of feed-forward layers and experts; geglu and swiglu have a second input product."
    )
    bias: bool = Field(False, description="Biases in attention, feed-forward layers and experts.")
    positions: Literal["sinusoidal", "sinusoidal_interleaved", "learned", "relative", "rotary"] = Field(
        "sinusoidal",
        description="Sines in one half and cosines in the other (Tensor2Tensor, NLLB), in turn (Vaswani et al.), a "
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
        description="Input type of matrix products; sums and parameters stay float32; "
        "auto: bfloat16 where the machine multiplies it natively.",
    )
    activation_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Type of the hidden states between layers, and of what travels to experts; norms, softmax and "
        "router stay float32 (Switch's selective precision).",
    )
    remat: Literal["none", "full", "dots", "moe", "offload_moe"] = Field(
        "none",
        description="What the backward pass computes again instead of keeping: nothing, all of a layer, all but "
        "products of weights, what is between router and experts' output; offload_moe keeps that on the host instead.",
    )
    moe: MoEConfig | None = Field(MoEConfig(), description="Mixture-of-experts layers; null: a dense model.")

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


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["adam", "adafactor", "lamb", "lion"] = Field(
        "adam", description="Optimizer; adam with weight_decay is AdamW."
    )
    beta1: Fraction = Field(0.9, description="Decay of the first moment; 0 keeps none (Adafactor).")
    beta2: Fraction = Field(0.98, description="Decay of the second moment (Adam, LAMB), or of the momentum (Lion).")
    epsilon: float = Field(1e-9, gt=0.0, description="Added to the root of the second moment (Adam, LAMB).")
    decay_exponent: float = Field(0.8, gt=0.0, description="Second moments decay by 1 - t^-this at step t (Adafactor).")
    update_clip: float | None = Field(
        1.0, gt=0.0, description="Root mean square to which the update of an array is clipped; null: never (Adafactor)."
    )
    parameter_scale: bool = Field(
        True, description="Updates are multiplied by the root mean square of their array (Adafactor)."
    )
    factored: bool = Field(
        True, description="Second moments are kept as rows and columns, chosen by the names of axes (Adafactor)."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled weight decay.")
    clip_norm: float | None = Field(1.0, gt=0.0, description="Global norm to which gradients are clipped; null: never.")


class ScheduleConfig(Section):
    """The learning rate over steps: linear warm-up, then a decay."""

    name: Literal["rsqrt", "constant_rsqrt", "inverse_sqrt", "linear", "cosine", "wsd", "constant"] = Field(
        "rsqrt",
        description="After warm-up: 1/sqrt(step) (inverse_sqrt: another name); the same without warm-up, constant "
        "meanwhile (GShard); linear or cosine to zero at the last step; constant and at the end linear to zero "
        "(wsd); constant.",
    )
    learning_rate: float = Field(1e-3, gt=0.0, description="Peak learning rate, reached at the end of warm-up.")
    warmup_steps: int = Field(1000, ge=0, description="Steps of warm-up.")
    warmup_from: float = Field(0.0, ge=0.0, description="Learning rate from which warm-up rises.")
    cooldown: Fraction = Field(0.2, description="Share of all steps over which wsd falls to zero at the end.")


class TrainConfig(Section):
    """The training run."""

    steps: Positive = Field(10_000, description="Optimizer steps.")
    tokens_per_batch: Positive = Field(
        4096, description="Token slots in one batch, on the side that batch_tokens_of names."
    )
    batch_tokens_of: Literal["target", "source"] = Field(
        "target",
        description="Side whose slots tokens_per_batch counts: rows of a batch = tokens_per_batch / its length.",
    )
    accumulate: Positive = Field(
        1, description="Parts in which a batch is computed one after the other, their gradients summed."
    )
    max_minutes: float | None = Field(
        None, gt=0.0, description="Stop, checkpointed, after so many minutes of training; null: never."
    )
    label_smoothing: Fraction = Field(0.1, description="Share of the probability mass spread over the vocabulary.")
    logits_z_weight: float = Field(
        0.0, ge=0.0, description="Coefficient of the z-loss of the output, log(sum exp logits)^2, mean over tokens."
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema_decay: Fraction | None = Field(
        None,
        description="Decay of a moving average of the weights, which is what is evaluated and translates; null: none.",
    )
    log_every: Positive = Field(50, description="Steps between two lines of metrics.jsonl.")
    dev_batches: Positive = Field(16, description="Most batches of the development set per loss.")
    checkpoint_every: Positive = Field(
        1000,
        description="Steps between two checkpoints, each with a development loss; the last step always has one.",
    )
    keep_checkpoints: Positive = Field(3, description="Newest checkpoints that are kept.")


class MeshConfig(Section):
    """The device mesh: how many devices along each axis; -1, at most once, takes what is left."""

    data: int = Field(1, ge=-1, description="Devices that share the batch rows (data parallelism).")
    expert: int = Field(-1, ge=-1, description="Devices that share the experts and, as in GShard, the batch rows.")
    model: int = Field(1, ge=-1, description="Devices that share hidden units and heads (tensor parallelism).")


class DecodeConfig(Section):
    """Beam search."""

    beam: Positive = Field(4, description="Beam width; 1 is greedy search.")
    length_penalty: float = Field(
        0.6, ge=0.0, description="Exponent of GNMT's length normalisation ((5 + length) / 6)^exponent; 0 is none."
    )
    max_length_ratio: float = Field(
        2.0, gt=0.0, description="Longest output: this times the source tokens, plus max_length_extra."
    )
    max_length_extra: int = Field(
        10, ge=1, description="Tokens that even the shortest source may take, see max_length_ratio."
    )
    batch_tokens: Positive = Field(2048, description="Source token slots decoded at once.")


class EvaluateConfig(Section):
    """Evaluation at the end of a run, and by nmt-evaluate."""

    split: Literal["test", "dev"] = Field("test", description="Which stored split is translated and scored.")
    samples: int = Field(2, ge=0, description="Sample translations shown at the end of a run.")


class Recipe(Section):
    """A whole run: what to learn from, the vocabulary, the model, training, decoding and evaluation."""

    name: str = Field(description="Name of the recipe; by default that of its file.")
    description: str = Field("", description="One line for --help.")
    run_dir: str = Field("runs/{name}", min_length=1, description="Folder of the run; {name} is the recipe's name.")
    seed: int = Field(1, ge=0, description="Seed from which everything random derives.")
    data: DataConfig
    vocab: VocabConfig = VocabConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    decode: DecodeConfig = DecodeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("name")
    @classmethod
    def _name_names_a_folder(cls, name: str) -> str:
        if not name or set(name) & set("{}/\\"):
            raise ValueError(f"name={name} is to name a folder: at least one character, and none of {{ }} / \\")
        return name

    @property
    def rows(self) -> int:
        """Rows of a batch (B)."""
        return self.train.tokens_per_batch // self._row_tokens()[1]

    def _row_tokens(self) -> tuple[str, int]:
        """Return the key of the row length that batches are counted by, and its value."""
        name = f"{self.train.batch_tokens_of}_length"
        return name, getattr(self.data, name)

    @model_validator(mode="after")
    def _rows_divide(self) -> Self:
        name, length = self._row_tokens()
        if self.train.tokens_per_batch % length:
            raise ValueError(
                f"train.tokens_per_batch={self.train.tokens_per_batch} is not a multiple of data.{name}={length}"
            )
        if self.rows % self.train.accumulate:
            raise ValueError(
                f"the {self.rows} rows of a batch are not a multiple of train.accumulate={self.train.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _positions_are_learnt(self) -> Self:
        longest = max(self.data.source_length, self.data.target_length)
        if self.model.positions == "learned" and longest > self.model.max_positions:
            raise ValueError(
                f"model.max_positions={self.model.max_positions} learnt positions are too few for rows of {longest} "
                "tokens: raise it, or shorten data.source_length and data.target_length"
            )
        return self

    @model_validator(mode="after")
    def _vocabularies_have_embeddings(self) -> Self:
        if self.vocab.target_size is not None and self.model.embeddings == "shared":
            raise ValueError(
                "vocab.target_size asks for a vocabulary of its own for the target side: set model.embeddings=separate"
            )
        return self
