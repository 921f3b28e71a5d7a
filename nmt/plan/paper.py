"""Figures that GShard (arXiv:2006.16668) published of its models, printed beside a plan of the same model.

Tables 1 and 3; BLEU is the average over 100 languages to English. The 2048E,60L model was trained with bfloat16
activations but not reported, "for the sake of reproducibility"; T(96L) is the dense baseline of table 3. Memory of a
device is drawn in the paper, not printed as numbers, so it is not here: it grows with layers and not with experts.
"""

from dataclasses import dataclass

SOURCE = "GShard, arXiv:2006.16668, tables 1 and 3"


@dataclass(frozen=True)
class Published:
    """A row of the tables; None where the paper says nothing."""

    name: str
    experts: int | None  # in a layer
    layers: int  # encoder and decoder together
    weights: float  # parameters, as printed
    cores: int  # TPU v3 cores: devices as JAX counts them
    batch_tokens: float  # source tokens of a step
    steps_per_second: float | None
    core_years: float | None
    days: float | None  # to 1e12 tokens
    bleu: float | None

    @property
    def tokens_per_second(self) -> float | None:
        """Source tokens a second."""
        return None if self.steps_per_second is None else self.steps_per_second * self.batch_tokens


# name, experts, layers, weights, cores, batch, steps/s, core years, days, BLEU
PAPER = tuple(
    Published(*row)
    for row in (
        ("MoE(2048E,36L)", 2048, 36, 600e9, 2048, 4e6, 0.72, 22.4, 4.0, 44.3),
        ("MoE(2048E,12L)", 2048, 12, 200e9, 2048, 4e6, 2.15, 7.5, 1.4, 41.3),
        ("MoE(512E,36L)", 512, 36, 150e9, 512, 1e6, 1.05, 15.5, 11.0, 43.7),
        ("MoE(512E,12L)", 512, 12, 50e9, 512, 1e6, 3.28, 4.9, 3.5, 40.0),
        ("MoE(128E,36L)", 128, 36, 37e9, 128, 1e6, 0.67, 6.1, 17.3, 39.0),
        ("MoE(128E,12L)", 128, 12, 12.5e9, 128, 1e6, 2.16, 1.9, 5.4, 36.7),
        ("MoE(2048E,60L)", 2048, 60, 1e12, 2048, 4e6, None, None, None, None),
        ("T(96L)", None, 96, 2.3e9, 2048, 4e6, None, 235.5, 42.0, 36.9),
    )
)


def published(experts: int | None, layers: int) -> Published | None:
    """Return the row of a model of so many experts in a layer (None: dense) and layers in all, or None."""
    return next((row for row in PAPER if (row.experts, row.layers) == (experts, layers)), None)
