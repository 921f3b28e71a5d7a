"""Keys of the mixture, which decide how often each direction is drawn."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from nmt.config.section import Fraction, Positive, Section

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_SHARED = re.compile(rf"([^=\s]+)={_NUMBER}")
_POINT = re.compile(rf"(\d+):({_NUMBER})")


def _numbered(text: str) -> str:
    if not _SHARED.fullmatch(text):
        raise ValueError(f"{text!r} is not of the form DIRECTION=NUMBER, such as *-en=0.5")
    return text


def _point(text: str) -> str:
    found = _POINT.fullmatch(text)
    if not found or float(found[2]) <= 0:
        raise ValueError(f"{text!r} is not of the form STEP:T with T above 0, such as 10000:5")
    return text


Weight = Annotated[str, AfterValidator(_numbered)]
Point = Annotated[str, AfterValidator(_point)]


class StageConfig(Section):
    """One stage of a curriculum. A stage ends at a checkpoint."""

    directions: tuple[str, ...] = Field((), description="Directions or patterns that are drawn; none: all.")
    temperature: float | None = Field(None, gt=0.0, description="Sampling temperature; null: that of the mixture.")
    denoise: Fraction | None = Field(None, description="Share of denoising; null: data.denoise.share.")
    weights: tuple[Weight, ...] = Field((), description="Weights that follow those of the mixture.")
    steps: Positive | None = Field(None, description="The stage ends at the first checkpoint after so many steps.")
    patience: Positive | None = Field(
        None, description="It ends after so many checkpoints without a lower development loss of its directions."
    )


class MixtureConfig(Section):
    """How often each direction is drawn, beyond its size and the temperature."""

    temperatures: tuple[Point, ...] = Field(
        (),
        description="Temperature over steps, as STEP:T, such as 0:1,10000:5; linear in between, constant outside; it "
        "takes the place of data.temperature.",
    )
    weights: tuple[Weight, ...] = Field(
        (),
        description="Factors of directions or patterns, such as *-en=2; the last one that fits a direction counts.",
    )
    groups: tuple[Weight, ...] = Field(
        (),
        description="Shares of groups, such as *-en=0.5,en-*=0.5; a direction belongs to the first that fits it, and "
        "those that fit none share what is left.",
    )
    back_translated: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        None,
        description="Share of back-translated pairs in every direction that has both kinds; null: by their number.",
    )
    min_share: float = Field(0.0, ge=0.0, lt=1.0, description="Least share of a direction that is drawn at all.")
    max_share: float = Field(1.0, gt=0.0, le=1.0, description="Greatest share of a direction.")
    held_out: tuple[str, ...] = Field(
        (), description="Directions or patterns that are evaluated but never learnt from (zero-shot)."
    )
    stages: tuple[StageConfig, ...] = Field(
        (),
        description="Stages of a curriculum, each a section of directions, temperature, denoise, weights, steps, "
        "patience.",
    )

    @property
    def points(self) -> list[tuple[int, float]]:
        """The temperature's schedule: (step, T)."""
        return [(int(step), float(value)) for step, value in (point.split(":") for point in self.temperatures)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        steps = [step for step, _ in self.points]
        if steps != sorted(set(steps)):
            raise ValueError(f"the steps of temperatures={','.join(self.temperatures)} are to rise")
        if self.min_share > self.max_share:
            raise ValueError(f"min_share={self.min_share:g} is above max_share={self.max_share:g}")
        total = sum(float(group.rpartition("=")[2]) for group in self.groups)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of groups={','.join(self.groups)} sum to {total:g}, more than 1")
        for number, stage in enumerate(self.stages[:-1], 1):
            if stage.steps is None and stage.patience is None:
                raise ValueError(f"stage {number} never ends: give it steps or patience")
        return self
