"""The sections of a declaration on how a corpus is read, one for each kind, and their union `Read`.

Sections of one family of forms stand in modules beside this one; nmt/corpora/declare/spec_read_base.py has the part
that all share, and says which fields patterns have.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, Patterns, PatternSection, ReadSection
from nmt.corpora.declare.spec_read_columns import Arrow, Csv, Json, Jsonl, Parquet, Tsv
from nmt.corpora.declare.spec_read_links import OpusXml, Tatoeba
from nmt.corpora.declare.spec_read_testsets import Wmt
from nmt.corpora.declare.spec_read_units import Localisation, Tbx, Tmx, Xliff


class JsonTables(PatternSection):
    """JSON tables, one file a language (and component), whose strings are aligned by their keys."""

    kind: Literal["json_tables"] = Field(description="How the corpus is read.")
    keys: tuple[str, ...] = Field(
        ("**",),
        description="Which strings: keys joined by /, where * is any one key, ** any number of them, and an item of a "
        "list has its number from 0 (only where no ** stands for it).",
    )

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self.require_once("language")
        return self


class Gettext(PatternSection):
    """Message catalogues of gettext, .mo or .po, one file a language (and domain).

    The messages are the key language, or keys of texts that its own catalogue has.

    Left out: fuzzy and obsolete messages, and those without a translation.
    """

    kind: Literal["gettext"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=KEY_LANGUAGE)
    keyed: bool = Field(
        False,
        description="Whether messages are keys, such as `menu.open`, and no text: the key language has catalogues as "
        "well, and translations are aligned by their keys.",
    )
    context_mark: str = Field(
        "",
        max_length=1,
        description="A character that ends a context at the start of a message, as ^ does in "
        "Wesnoth's `unit^Ghost`; it is cut off. Empty: none.",
    )
    accelerators: str = Field(
        "",
        max_length=4,
        description="Characters that mark the key of a menu entry, such as & in `&Open`, and are "
        "cut off together with endings like `(&O)`. Empty: none.",
    )

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self.require_once("language")
        return self


class HtmlTables(PatternSection):
    """HTML pages, one a language (and component), aligned by the ids of paragraphs or by sections."""

    kind: Literal["html"] = Field(description="How the corpus is read.")
    align: Literal["id", "section"] = Field(
        description="id: paragraphs and headings by their id. section: paragraphs by their place in the <header> or "
        "<article>; where a language has another number of them, the section as one text."
    )
    sentences: bool = Field(False, description="Divide a paragraph into sentences where both sides have as many.")

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self.require_once("language")
        return self


class Descriptions(ReadSection):
    """Descriptions of Debian packages: the title and the paragraphs, where both sides have as many, else the title."""

    kind: Literal["ddtp"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=KEY_LANGUAGE)
    sentences: bool = Field(True, description="Divide a paragraph into sentences where both sides have as many.")

    @property
    def patterns(self) -> tuple[str, ...]:
        """Where the fetched indexes are kept."""
        return ("{component}/{language}.txt",)


class Sqlite(PatternSection):
    """A SQLite database in which every text has a component, a key and the code of a language (or edition)."""

    kind: Literal["sqlite"] = Field(description="How the corpus is read.")
    query: str = Field(
        min_length=1,
        description="SELECT of the columns language, component, key, text. Rows of a component need not be together.",
    )


class ParallelText(PatternSection):
    """Plain text with a sentence a line: line n of one file translates line n of the other.

    Files whose paths differ in {language} (or {side}) only belong together; all of them, also more than two, have as
    many lines. OPUS's .ids are no text.
    """

    texts = "pairs"
    kind: Literal["parallel_text"] = Field(description="How the corpus is read.")
    documents: str = Field(
        "",
        description="What stands in place of {language} in the path of a file whose lines begin with the document of "
        "each line, up to a tab, such as ids in downloads of OPUS. Texts of a document have the same component. "
        "Empty: the component is that of the path.",
    )
    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no side, the source of the direction.")

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        for pattern in self.patterns:
            if pattern.count("{language}") + pattern.count("{side}") != 1:
                raise ValueError(f"{pattern!r} does not have {{language}} or {{side}} once")
            if self.documents and "{side}" in pattern:
                raise ValueError(
                    f"documents: {self.documents} stands in place of {{language}}, not {{side}}: {pattern!r}"
                )
        return self


class PlainText(PatternSection):
    """Text of single languages, a text a line, each file for itself (monolingual: true)."""

    texts = "single"
    kind: Literal["text"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description="Language of files whose path has no {language}.")


class TfdsDataset(PatternSection):
    """Datasets with a Translation or TranslationVariableLanguages feature; the component is the split's name."""

    kind: Literal["tfds"] = Field(description="How the corpus is read.")
    files: Patterns = Field(
        description="Datasets, as NAME or NAME/CONFIG or NAME/CONFIG:VERSION, with {source} and {target} where there "
        "is one a direction; the newest version that is prepared where none is given."
    )
    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no side, the first language.")


class AnyPairs(PatternSection):
    """Files of pairs, or TFDS datasets, whose kind follows from the pattern.

    .tsv, .csv, .jsonl (or .ndjson), .json, .parquet and .arrow (and .gz, .xz, .zst or .bz2 behind it) are these, with
    source and target in the first two columns of .tsv, else in the columns of these names or of the two languages; a
    pattern with {language} is parallel text; `tfds:NAME/{source}_{target}` is TFDS.
    """

    texts = "pairs"
    kind: Literal["any"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=KEY_LANGUAGE)


Read = Annotated[
    JsonTables
    | Gettext
    | HtmlTables
    | Descriptions
    | Sqlite
    | ParallelText
    | PlainText
    | Tsv
    | Csv
    | Json
    | Jsonl
    | Parquet
    | Arrow
    | TfdsDataset
    | Tmx
    | Xliff
    | Tbx
    | Localisation
    | OpusXml
    | Tatoeba
    | Wmt
    | AnyPairs,
    Field(discriminator="kind"),
]
