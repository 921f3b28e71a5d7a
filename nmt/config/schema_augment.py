"""Keys of augmentation: random changes of training pairs, made anew every time a pair is drawn."""

from typing import Literal

from pydantic import Field

from nmt.config.section import Fraction, Section


class AugmentConfig(Section):
    """Changes of training pairs, anew every time one is drawn. All of it is off by default."""

    subword: Fraction = Field(
        0.0,
        description="Subword regularisation: for unigram vocabularies the exponent alpha with which one of the 16 best "
        "segmentations is drawn (Kudo 2018), for BPE the probability that a merge is left out (BPE-dropout); 0: none.",
    )
    sides: Literal["source", "target", "both"] = Field("both", description="Sides that subword applies to.")
    lower: Fraction = Field(0.0, description="Share of pairs whose both sides are written in lower case.")
    upper: Fraction = Field(0.0, description="Share of pairs whose both sides are written in upper case.")
    drop: Fraction = Field(0.0, description="Probability that a word of a source is left out (noise).")
    swap: Fraction = Field(
        0.0, description="Probability that a word of a source changes places with the next one (noise)."
    )

    @property
    def enabled(self) -> bool:
        """Whether any change has a probability above zero."""
        return any((self.subword, self.lower, self.upper, self.drop, self.swap))
