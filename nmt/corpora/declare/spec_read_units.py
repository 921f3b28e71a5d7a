"""The sections of a declaration on how translation memories, terminologies and localisation files are read."""

from typing import Literal, Self

from pydantic import Field, model_validator

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, PatternSection


class Units(PatternSection):
    """Files of units, in which texts of two or more languages stand side by side with the codes of their languages."""

    key_language: str = Field("en", description=KEY_LANGUAGE + " Where a unit has none of it, its source language.")


class Tmx(Units):
    """Translation memories, TMX 1.1 to 1.4b, streamed.

    Every text of a language pairs with every text of another. Left out: markup in <bpt>, <ept>, <ph>, <it> and <ut>.
    """

    kind: Literal["tmx"] = Field(description="How the corpus is read.")


class Xliff(Units):
    """Localisation files of XLIFF 1.0 to 1.2, 2.0 and 2.1, streamed; the path gives the languages that a file does not.

    Left out: inline codes, untranslated units, those with `translate="no"`, and drafts.
    """

    kind: Literal["xliff"] = Field(description="How the corpus is read.")
    drafts: bool = Field(
        False,
        description="Whether translations count that are not done by their state (new, initial, needs-...) or, where "
        "they have none, by approved=no.",
    )


class Tbx(Units):
    """Terminologies, TBX 2 and 3, streamed: every term of an entry pairs with those of other languages.

    Left out: terms that are deprecated, superseded or forbidden.
    """

    kind: Literal["tbx"] = Field(description="How the corpus is read.")


class Localisation(PatternSection):
    """Localisation files of programs, one a language, whose strings are aligned by their keys.

    The form follows from the ending: .xml (Android), .properties (Java), .ftl (Fluent), .resx and .resw (.NET),
    .strings (Apple), .ts (Qt, whose files have both languages). A path without {language} is of the key language.
    Left out: strings that are not to be translated, references, resources that are no text, unfinished and obsolete
    translations.
    """

    kind: Literal["localisation"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=KEY_LANGUAGE)

    @model_validator(mode="after")
    def _language_at_most_once(self) -> Self:
        for pattern in self.patterns:
            if pattern.count("{language}") > 1:
                raise ValueError(f"{pattern!r} has {{language}} more than once")
        return self
