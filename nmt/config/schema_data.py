"""Keys of the text: its corpora, how it is cleaned and mixed, and the vocabulary."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field

from nmt.config.schema_augment import AugmentConfig
from nmt.config.schema_denoise import DenoiseConfig
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
    """Filters of sentence pairs, for training, development and test sets alike. Translation applies `unicode` alone."""

    unicode: Literal["NFC", "NFKC"] = Field("NFC", description="Unicode normal form of the text that is kept.")
    control_characters: bool = Field(
        True, description="Reject sides with control, private-use or replacement characters."
    )
    placeholders: bool = Field(True, description="Reject sides with markup, placeholders, code or URLs.")
    min_words: Positive = Field(
        4,
        description="Fewest words of the corpus's key language (English) in a pair; of a key language without spaces, "
        "as many as English would have in a text of that length.",
    )
    max_words: Positive = Field(60, description="Most words of the corpus's key language (English) in a pair.")
    min_characters: Positive = Field(
        1, description="Fewest characters of a side, in characters of English (a Chinese one is 3.7 of those)."
    )
    max_characters: int = Field(
        1000, ge=1, le=10_000, description="Most characters of a side, in characters of English."
    )
    max_length_ratio: Annotated[float, Field(gt=1.0)] | None = Field(
        4.0,
        description="Greatest ratio of the lengths of a translation and the key language's text, in characters of "
        "English; its inverse is the least. null: any.",
    )
    min_letters: Fraction = Field(
        0.6, description="Least share of letters among the characters of the key language's side, spaces aside."
    )
    min_script: Fraction = Field(
        0.3,
        description="Least share of a side's letters that are of its language's script; four Latin letters in another "
        "script count as one. In Chinese also the least share of the language's own script, Simplified or Traditional, "
        "among characters that only one of the two uses. 0: any.",
    )
    max_repeated_characters: Positive | None = Field(
        15, description="Most times that a character may follow itself. null: any."
    )
    max_repeated_words: Positive | None = Field(
        4, description="Most times that a word (without spaces: 2 to 8 letters) may follow itself. null: any."
    )
    copies: bool = Field(True, description="Reject pairs whose sides are identical.")
    min_digit_overlap: Fraction = Field(
        0.5,
        description="Least share of digits that a translation and the key language's text have in common, where both "
        "have some and one three or more. 0: any.",
    )
    addresses: bool = Field(True, description="Reject pairs whose sides name different hosts in URLs or e-mails.")
    language_confidence: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="Reject a side that py3langid (the extra `langid`) takes for another language with this "
        "probability, such as 0.9. null: do not ask.",
    )
    duplicates: Literal["keep", "exact", "digits", "folded"] = Field(
        "folded",
        description="Which texts of the key language count as one, of which each direction keeps the first pair: none, "
        "identical ones, those that differ in digits, or in digits, case and punctuation.",
    )
    decontaminate: tuple[str, ...] = Field(
        (),
        description="Test sets, all text of which is kept out of training, like that of the held-out splits: files, "
        "folders, or patterns such as flores/**/*.devtest; docs/cleaning.md lists the formats.",
    )
    max_overlap: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        0.8,
        description="Training pairs are rejected of which a side has this share of the n-grams of a held-out text. "
        "null: only identical texts are.",
    )
    overlap_ngram: int = Field(3, ge=1, le=13, description="Words in the n-grams of max_overlap.")


class DataConfig(Section):
    """The text to learn from, and how it is mixed and packed."""

    corpora: tuple[str, ...] = Field(min_length=1, description="Corpora: names of data/*.yaml, or paths.")
    directions: tuple[str, ...] = Field(
        min_length=1,
        description="Translation directions, such as de-en; any alias of a language is understood, and *-en is every "
        "language that the corpora cover into English.",
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature T of the mixture: p(direction) is proportional to pairs^(1/T)."
    )
    tags: Literal["target", "nllb"] = Field(
        "target",
        description="Language tags: the target's tag before the source sentence, as in GShard; or, as in NLLB, the "
        "source's tag before the source sentence and the target's tag as the decoder's first input.",
    )
    domain_tags: bool = Field(
        False,
        description="In training, <domain:NAME> follows the tag of sources whose corpus declares a domain.",
    )
    source_length: Positive = Field(
        64, description="Tokens in one packed row on the source side (S); longer training pairs are left out."
    )
    target_length: Positive = Field(
        64, description="Tokens in one packed row on the target side (T); longer training pairs are left out."
    )
    shuffle_window: Positive = Field(8192, description="Examples among which the mixed stream is shuffled once more.")
    augment: AugmentConfig = AugmentConfig()
    denoise: DenoiseConfig = DenoiseConfig()
    mixture: MixtureConfig = MixtureConfig()
    clean: CleanConfig = CleanConfig()

    @property
    def streams(self) -> tuple[str, ...]:
        """The names under which examples are counted: the directions, then those of denoising, such as de-de."""
        return (*self.directions, *(f"{language}-{language}" for language in self.denoise.languages))


class VocabConfig(Section):
    """The SentencePiece vocabulary, shared by all languages, or one for sources and one for targets."""

    size: int = Field(8000, ge=300, description="Pieces in the vocabulary, tags and byte pieces included (V).")
    target_size: Annotated[int, Field(ge=300)] | None = Field(
        None, description="Pieces of a vocabulary of its own for the target side; null: both sides share one."
    )
    normalisation: Literal["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"] = Field(
        "identity",
        description="SentencePiece's rule by which a learnt vocabulary changes text; all but identity lose characters. "
        "A vocabulary given by vocab.model keeps its own rule.",
    )
    model_type: Literal["unigram", "bpe"] = Field("unigram", description="SentencePiece model type.")
    character_coverage: float = Field(
        0.9999, ge=0.98, le=1.0, description="Share of characters that get a piece of their own; bytes cover the rest."
    )
    split_digits: bool = Field(
        False,
        description="Whether each digit of 0 to 9 is a piece of its own in a learnt vocabulary (SentencePiece's "
        "split_digits). Numbers then take more pieces, and are copied digit by digit.",
    )
    temperature: float = Field(
        5.0, gt=0.0, description="Sampling temperature over languages of the text it is learnt from."
    )
    model: str | None = Field(
        None,
        description="Path of an existing vocabulary: vocab.model of a run, or any SentencePiece model, to which "
        "missing tags are added; null: one is learnt.",
    )
    target_model: str | None = Field(None, description="The same for the vocabulary of targets, with target_size.")
    sentences: Positive = Field(1_000_000, description="Most sentences that the vocabulary is learnt from.")

    @property
    def sizes(self) -> VocabularySizes:
        """The pieces of either side; equal where both share one vocabulary."""
        return VocabularySizes(self.size, self.size if self.target_size is None else self.target_size)
