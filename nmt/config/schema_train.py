"""Keys of the training run: steps, batches, optimizer and schedule."""

from typing import Literal

from pydantic import Field

from nmt.config.section import Fraction, Positive, Section


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
        1, description="Micro-batches of a batch, computed one after the other, with their gradients summed."
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
        description="Decay of a moving average of the weights, which evaluation and translation use; null: none.",
    )
    log_every: Positive = Field(50, description="Steps between two lines of metrics.jsonl.")
    dev_batches: Positive = Field(16, description="Most batches of the development set per loss.")
    checkpoint_every: Positive = Field(
        1000,
        description="Steps between two checkpoints, each with a development loss; the last step always has one.",
    )
    keep_checkpoints: Positive = Field(3, description="Newest checkpoints that are kept.")
