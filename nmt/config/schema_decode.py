"""The section `decode` of a recipe: search, sampling, and what a translation may consist of."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nmt.config.section import Fraction, Positive, Section


class DecodeConfig(Section):
    """Beam search or sampling, and what a translation may consist of; each can be changed for one translation."""

    beam: Positive = Field(4, description="Beam width; 1 is greedy search.")
    normalisation: Literal["gnmt", "length", "none"] = Field(
        "gnmt",
        description="Divisor of a hypothesis's log probability: gnmt: ((5 + length) / 6)^length_penalty, as in GNMT; "
        "length: length^length_penalty, as in CTranslate2 and fairseq; none: 1.",
    )
    length_penalty: float = Field(
        0.6,
        ge=0.0,
        description="Exponent of the length normalisation, in which the length counts the end; 0 does not normalise.",
    )
    coverage_penalty: float = Field(
        0.0,
        ge=0.0,
        description="Weight (beta) of GNMT's coverage penalty, which lowers the scores of hypotheses that leave source "
        "tokens without attention; 0 is none.",
    )
    patience: float | None = Field(
        None,
        gt=0.0,
        description="The search of a sentence ends after beam times this finished hypotheses (1: as most toolkits "
        "do); null: when no hypothesis can still become one of the best, which is proven.",
    )
    early_stopping: bool = Field(
        True, description="Whether a search may end early (see patience), or goes on to the longest output."
    )
    hypotheses: Positive = Field(
        1, description="Translations of a sentence, best first: at most the beam, or the number of samples."
    )
    beam_groups: Positive = Field(
        1, description="Groups of diverse beam search, into which the beam is divided; 1 is plain beam search."
    )
    diversity: float = Field(
        0.5,
        ge=0.0,
        description="Taken from the score of a token for each earlier group that chose it at the same position, with "
        "beam_groups above 1.",
    )
    sampling: bool = Field(False, description="Whether translations are drawn at random instead of searched for.")
    temperature: float = Field(1.0, gt=0.0, description="Divisor of the logits that samples are drawn from.")
    top_k: int = Field(0, ge=0, description="Samples are drawn from so many most probable tokens; 0: from all.")
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Samples are drawn from the fewest most probable tokens that together have this probability.",
    )
    epsilon: Fraction = Field(
        0.0, description="Samples are drawn from tokens of at least this probability, else from the most probable."
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of samples.")
    min_length: Positive = Field(1, description="Least tokens of an output, the end not counted.")
    min_length_ratio: float = Field(0.0, ge=0.0, description="Least tokens of an output: this times the source tokens.")
    max_length: Positive | None = Field(None, description="Most tokens of an output; null: see max_length_ratio.")
    max_length_ratio: float = Field(
        2.0, gt=0.0, description="Longest output: this times the source tokens, plus max_length_extra."
    )
    max_length_extra: int = Field(
        10, ge=1, description="Tokens that even the shortest source may take, see max_length_ratio."
    )
    no_repeat_ngram: int = Field(
        0, ge=0, description="No output has a sequence of so many tokens twice; 0: it may repeat any."
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0.0,
        description="Logits of tokens that an output has already are divided by this if positive, else multiplied "
        "(CTRL, arXiv:1909.05858); 1 is none.",
    )
    suppress: tuple[str, ...] = Field((), description="Texts, such as words, that no output has, as their pieces.")
    unknown: Literal["never", "allowed"] = Field(
        "never",
        description="Whether the token for unknown characters may be generated; text has none, since vocabularies "
        "spell such characters in bytes.",
    )
    batch_tokens: Positive = Field(2048, description="Source token slots decoded at once.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.beam % self.beam_groups:
            raise ValueError(f"beam ({self.beam}) must be a multiple of beam_groups ({self.beam_groups})")
        if not self.sampling and self.hypotheses > self.beam:
            raise ValueError(f"hypotheses ({self.hypotheses}) must be at most the beam ({self.beam})")
        if self.max_length is not None and self.min_length > self.max_length:
            raise ValueError(f"min_length ({self.min_length}) must be at most max_length ({self.max_length})")
        if self.patience is not None and not self.early_stopping:
            raise ValueError("patience ends a search early, which early_stopping forbids; give one of them")
        if "" in self.suppress:
            raise ValueError("suppress has an empty text")
        return self
