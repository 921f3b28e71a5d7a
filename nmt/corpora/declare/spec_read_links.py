"""The sections of a declaration on how sentences are read whose alignment stands in files of its own."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, Patterns, PatternSection, list_patterns


class Tatoeba(PatternSection):
    """Tatoeba's exports: sentences with a number and a language, and links between the numbers of translations.

    Of `files` the first three columns are read: number, language, text (sentences.csv, sentences_detailed.csv,
    deu_sentences.tsv). A link that stands there in both directions is one pair.
    """

    kind: Literal["tatoeba"] = Field(description="How the corpus is read.")
    links: Patterns = Field(description="Path of a file of links, two numbers a line, as a pattern.")
    key_language: str = Field("en", description=KEY_LANGUAGE + " Where a pair has none of it, the first by its code.")

    @property
    def companions(self) -> tuple[str, ...]:
        """The patterns of `links`."""
        return list_patterns(self.links)


class OpusXml(PatternSection):
    """OPUS's XML: files of sentences with ids, and alignment files that say which ids translate each other.

    Sentences that are aligned with one are joined. Tokenised text is joined by blanks: take OPUS's `raw` files rather.
    """

    texts = "pairs"
    kind: Literal["opus_xml"] = Field(description="How the corpus is read.")
    files: Patterns = Field(
        description="Path of an alignment file (cesAlign), as a pattern with {source} and {target}, such as "
        "{source}-{target}.xml.gz."
    )
    sentences: Patterns = Field(
        description="Path of a file of sentences, as a pattern in which {path} is the document as alignment files "
        "write it (de/ep-00-01-17.xml.gz, here with or without .gz), such as {language}.zip/*/raw/{path}."
    )
    min_certainty: float | None = Field(
        None, description="The smallest certainty of a link that is used; without one it is not. Null: every link is."
    )
    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no side, the source of the direction.")

    @property
    def companions(self) -> tuple[str, ...]:
        """The patterns of `sentences`."""
        return list_patterns(self.sentences)

    @model_validator(mode="after")
    def _has_fields(self) -> Self:
        for pattern in self.patterns:
            if "{source}" not in pattern or "{target}" not in pattern:
                raise ValueError(f"{pattern!r} does not say with {{source}} and {{target}} which languages it aligns")
        for pattern in self.companions:
            if "{path}" not in pattern:
                raise ValueError(f"sentences: {pattern!r} does not have {{path}}, the document that is aligned")
        return self
