"""Keys of denoising, by which monolingual text is learnt from."""

from typing import Annotated

from pydantic import Field

from nmt.config.schema_mixture import Weight
from nmt.config.section import Fraction, Section


class DenoiseConfig(Section):
    """Examples made of monolingual corpora: the text with some of it masked is the source, the text the target."""

    languages: tuple[str, ...] = Field(
        (),
        description="Languages whose monolingual text is learnt from; * is every language that the declarations of "
        "monolingual corpora cover. None: no denoising.",
    )
    share: Fraction = Field(
        0.2,
        description="Share of denoising among all examples; data.mixture divides the rest among the directions. 0: the "
        "text is for the vocabulary only.",
    )
    temperature: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="Sampling temperature over the languages of denoising; null: data.temperature."
    )
    weights: tuple[Weight, ...] = Field((), description="Factors of languages in denoising, such as de=2.")
    mask: float = Field(
        0.35, gt=0.0, lt=1.0, description="Share of a text's pieces that are masked, by spans (mBART: 0.35)."
    )
    span: float = Field(
        3.5, gt=0.0, le=100.0, description="Mean pieces of a span, which one <mask> stands for (Poisson; mBART: 3.5)."
    )
