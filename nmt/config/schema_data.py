"""Keys of the text: what is learnt from, how it is cleaned and mixed, and the vocabulary."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field

from nmt.config.schema_augment import AugmentConfig
from nmt.config.schema_mixture import MixtureConfig
from nmt.config.section import Fraction, Positive, Section


class VocabularySizes(NamedTuple):
    """Ids of the vocabulary of sources and of that of targets (V of either side)."""

    source: int
    target: int

    @classmethod
    def shared(cls, size: int) -> Self:
        """Return the sizes of one vocabulary for both sides."""
        return cls(size, size)


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
        min_length=1,
        description="Translation directions, such as de-en; any alias of a language is understood, and *-en is every "
        "language that the corpora cover into English.",
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature T of the mixture: p(direction) is proportional to pairs^(1/T)."
    )
    source_length: Positive = Field(64, description="Tokens in one packed row on the source side (S).")
    target_length: Positive = Field(64, description="Tokens in one packed row on the target side (T).")
    shuffle_window: Positive = Field(8192, description="Examples among which the mixed stream is shuffled once more.")
    augment: AugmentConfig = AugmentConfig()
    mixture: MixtureConfig = MixtureConfig()
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
    model: str | None = Field(
        None, description="Path of a vocabulary that there is (vocab.model of a run); null: one is learnt."
    )
    target_model: str | None = Field(None, description="The same for the vocabulary of targets, with target_size.")
    sentences: Positive = Field(1_000_000, description="Most sentences that the vocabulary is learnt from.")

    @property
    def sizes(self) -> VocabularySizes:
        """The pieces of either side; equal where both share one vocabulary."""
        return VocabularySizes(self.size, self.size if self.target_size is None else self.target_size)
