"""The frozen models of a recipe: every key, its type, its bounds, its default and its description.

`--help`, docs/configuration.md and the JSON schema for editors are generated from the descriptions below; a section is
described by its docstring.
Keys that cannot be described in one sentence do not belong here.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


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
    """The SentencePiece vocabulary, shared by all languages."""

    size: int = Field(8000, ge=300, description="Pieces in the vocabulary, tags and byte pieces included (V).")
    model_type: Literal["unigram", "bpe"] = Field("unigram", description="SentencePiece model type.")
    character_coverage: float = Field(
        0.9999, gt=0.9, le=1.0, description="Share of characters that get a piece of their own; bytes cover the rest."
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature over languages of the text it is learnt from."
    )
    sentences: Positive = Field(1_000_000, description="Most sentences that the vocabulary is learnt from.")


class MoEConfig(Section):
    """The mixture-of-experts layers: GShard's top-2 gating (GShard, section 2.2 and Algorithm 1)."""

    experts: Positive = Field(8, description="Experts in a mixture-of-experts layer (E).")
    every: Positive = Field(2, description="Every n-th layer of encoder and decoder has experts; the others are dense.")
    capacity_factor: float = Field(
        2.0, gt=0.0, description="Slots of an expert in training, as a multiple of N/E; GShard's 2N/E is 2.0."
    )
    min_capacity: Positive = Field(4, description="Fewest slots that an expert has for a group.")
    group_size: Positive | None = Field(
        None, description="Tokens in a group (N), routed on their own; null: a batch is one group."
    )
    second_expert: Literal["random", "all"] = Field(
        "random", description="Second choices: kept with probability gate/threshold, or all."
    )
    second_threshold: float = Field(
        0.5,
        gt=0.0,
        description="Normalised gate from which a second choice is always kept; 0.5 is the paper's 2*g2 > rnd.",
    )
    balance_weight: float = Field(
        0.01,
        ge=0.0,
        description="Coefficient of the load-balancing loss E * sum_e f_e P_e, mean over layers and groups.",
    )
    dispatch: Literal["scatter", "einsum"] = Field(
        "scatter", description="How tokens move to their experts in training; einsum is GShard's one-hot reference."
    )


class ModelConfig(Section):
    """The encoder-decoder Transformer."""

    width: Positive = Field(256, description="Model width (M).")
    hidden: Positive = Field(1024, description="Hidden width of a feed-forward layer and of one expert (H).")
    heads: Positive = Field(4, description="Attention heads (A).")
    head_width: Positive = Field(64, description="Width of one head (D); heads * head_width may differ from the width.")
    encoder_layers: Positive = Field(4, description="Encoder layers.")
    decoder_layers: Positive = Field(4, description="Decoder layers.")
    dropout: Fraction = Field(0.1, description="Dropout on embeddings, residuals and feed-forward hidden units.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Input type of matrix products; sums, parameters and everything else stay float32; "
        "auto: bfloat16 where the machine multiplies it natively.",
    )
    moe: MoEConfig | None = Field(MoEConfig(), description="Mixture-of-experts layers; null: a dense model.")

    @model_validator(mode="after")
    def _layers_divide(self) -> Self:
        every = self.moe.every if self.moe else 1
        for side in ("encoder_layers", "decoder_layers"):
            if (layers := getattr(self, side)) % every:
                raise ValueError(f"{side}={layers} is not a multiple of moe.every={every}")
        return self


class OptimizerConfig(Section):
    """The optimizer."""

    name: Literal["adam", "adafactor"] = Field("adam", description="Optimizer.")
    beta1: Fraction = Field(0.9, description="Decay of the first moment; 0 keeps none (Adafactor).")
    beta2: Fraction = Field(0.98, description="Decay of the second moment (Adam).")
    epsilon: float = Field(1e-9, gt=0.0, description="Added to the root of the second moment (Adam).")
    weight_decay: float = Field(0.0, ge=0.0, description="Decoupled weight decay.")
    clip_norm: float | None = Field(1.0, gt=0.0, description="Global norm to which gradients are clipped; null: never.")


class ScheduleConfig(Section):
    """The learning rate over steps: linear warm-up, then a decay."""

    name: Literal["rsqrt", "linear", "cosine"] = Field(
        "rsqrt", description="Decay after warm-up: 1/sqrt(step), or linear or cosine to zero at the last step."
    )
    learning_rate: float = Field(1e-3, gt=0.0, description="Peak learning rate, reached at the end of warm-up.")
    warmup_steps: int = Field(1000, ge=0, description="Steps of linear warm-up.")


class TrainConfig(Section):
    """The training run."""

    steps: Positive = Field(10_000, description="Optimizer steps.")
    tokens_per_batch: Positive = Field(
        4096, description="Target-side token slots in one batch; rows of a batch = tokens_per_batch / target_length."
    )
    max_minutes: float | None = Field(
        None, gt=0.0, description="Stop, checkpointed, after so many minutes of training; null: never."
    )
    label_smoothing: Fraction = Field(0.1, description="Share of the probability mass spread over the vocabulary.")
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

    @model_validator(mode="after")
    def _rows_divide(self) -> Self:
        if self.train.tokens_per_batch % self.data.target_length:
            raise ValueError(
                f"train.tokens_per_batch={self.train.tokens_per_batch} is not a multiple of "
                f"data.target_length={self.data.target_length}"
            )
        return self
