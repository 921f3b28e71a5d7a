"""The sections of a declaration on how a corpus is read, one for each kind.

Paths are patterns. In them `{language}` is the corpus's code of a language, `{component}` a part of the corpus (texts
of one component are never divided among splits), `{path}` the same with slashes, `{source}` and `{target}` the
languages of a direction, `*` any part of a name, `**` any number of folders, and `$NAME` a variable of the environment.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from nmt.config import Section

_FIELDS = ("language", "component", "path", "source", "target")
_FIELD = re.compile(r"\{([^{}]*)\}")


def _check_patterns(patterns: Any) -> Any:
    """Check a path or several in one place, since an error of a union would name the kinds that it could be."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(one, str) and one for one in listed):
        raise ValueError(f"a path is needed, or a list of paths, not {patterns!r}")
    for pattern in listed:
        for name in _FIELD.findall(pattern):
            if name not in _FIELDS:
                known = ", ".join(f"{{{field}}}" for field in _FIELDS)
                raise ValueError(f"{pattern!r} has {{{name}}}, which is none of {known}")
    return patterns


Patterns = Annotated[str | tuple[str, ...], BeforeValidator(_check_patterns)]
_Column = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
_KEY_LANGUAGE = "Language that all others are translated from; its text identifies a row."


class ReadSection(Section):
    """The part that all kinds have in common.

    Attributes:
      texts: whether a corpus of this kind has pairs, single texts (monolingual: true), or either.
    """

    texts: ClassVar[Literal["pairs", "single", "either"]] = "either"


class _Reading(ReadSection):
    """The part that all kinds that read files by a pattern have in common."""

    files: Patterns = Field(description="Path of a file, as a pattern; the first of several that fits a path counts.")
    key_language: str = Field(description=_KEY_LANGUAGE)

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns of `files`."""
        return (self.files,) if isinstance(self.files, str) else self.files

    def _require_once(self, *names: str) -> None:
        for pattern in self.patterns:
            if any(pattern.count(f"{{{name}}}") != 1 for name in names):
                raise ValueError(f"{pattern!r} does not have {' and '.join(f'{{{name}}}' for name in names)} once each")


class JsonTables(_Reading):
    """JSON tables, one file a language (and component), whose strings are aligned by their keys."""

    kind: Literal["json_tables"] = Field(description="How the corpus is read.")
    keys: tuple[str, ...] = Field(
        ("**",),
        description="Which strings: keys joined by /, where * is any one key, ** any number of them, and an item of a "
        "list has its number from 0 (only where no ** stands for it).",
    )

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self._require_once("language")
        return self


class Gettext(_Reading):
    """Message catalogues of gettext, .mo or .po, one file a language (and domain); the messages are the key language.

    Left out: fuzzy and obsolete messages, and those without a translation.
    """

    kind: Literal["gettext"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=_KEY_LANGUAGE)
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
        self._require_once("language")
        return self


class HtmlTables(_Reading):
    """HTML pages, one a language (and component), aligned by the ids of paragraphs or by sections."""

    kind: Literal["html"] = Field(description="How the corpus is read.")
    align: Literal["id", "section"] = Field(
        description="id: paragraphs and headings by their id. section: paragraphs by their place in the <header> or "
        "<article>; where a language has another number of them, the section as one text."
    )
    sentences: bool = Field(False, description="Divide a paragraph into sentences where both sides have as many.")

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self._require_once("language")
        return self


class Descriptions(ReadSection):
    """Descriptions of Debian packages: the title and the paragraphs, where both sides have as many, else the title."""

    kind: Literal["ddtp"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=_KEY_LANGUAGE)
    sentences: bool = Field(True, description="Divide a paragraph into sentences where both sides have as many.")

    @property
    def patterns(self) -> tuple[str, ...]:
        """Where the fetched indexes are kept."""
        return ("{component}/{language}.txt",)


class Sqlite(_Reading):
    """A SQLite database in which every text has a component, a key and the code of a language (or edition)."""

    kind: Literal["sqlite"] = Field(description="How the corpus is read.")
    query: str = Field(
        min_length=1,
        description="SELECT of the columns language, component, key, text. Rows of a component need not be together.",
    )


class ParallelText(_Reading):
    """Plain text with a sentence a line: line n of one file translates line n of the other.

    Files whose paths differ in {language} only belong together; all of them, also more than two, have as many lines.
    """

    texts = "pairs"
    kind: Literal["parallel_text"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=_KEY_LANGUAGE + " Where it is no side, the source of the direction.")

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        self._require_once("language")
        return self


class PlainText(_Reading):
    """Text of single languages, a text a line, each file for itself (monolingual: true)."""

    texts = "single"
    kind: Literal["text"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description="Language of files whose path has no {language}.")


class Columns(_Reading):
    """Files with a row a line (or record) and a column a language."""

    key_language: str = Field("en", description=_KEY_LANGUAGE + " Where it is no column, the first one.")
    columns: dict[str, _Column] = Field(
        {},
        description="Column of each language: number from 0, name, or dotted path in JSON; `source`, `target` and "
        "`language` stand for the languages of {source}, {target} and {language}. Empty: source 0 and target 1 (by "
        "name: those names), or, without {source} and {target}, every column whose name is a language.",
    )
    component: _Column | None = Field(
        None, description="Column of what is never divided among splits, such as the document. Null: every text alone."
    )


class Tsv(Columns):
    """Columns of text separated by tabs, without quoting."""

    kind: Literal["tsv"] = Field(description="How the corpus is read.")
    header: bool = Field(False, description="Whether the first line has the names of the columns.")

    @model_validator(mode="after")
    def _numbers_without_header(self) -> Self:
        named = [column for column in (*self.columns.values(), self.component) if isinstance(column, str)]
        if named and not self.header:
            raise ValueError(f"column {named[0]!r} has a name: say header: true, or its number from 0")
        return self


class Jsonl(Columns):
    """A JSON object a line."""

    kind: Literal["jsonl"] = Field(description="How the corpus is read.")


class Parquet(Columns):
    """Parquet files (extra `parquet`)."""

    kind: Literal["parquet"] = Field(description="How the corpus is read.")


class TfdsDataset(_Reading):
    """Datasets with a Translation or TranslationVariableLanguages feature; the component is the split's name."""

    kind: Literal["tfds"] = Field(description="How the corpus is read.")
    files: Patterns = Field(
        description="Datasets, as NAME or NAME/CONFIG or NAME/CONFIG:VERSION, with {source} and {target} where there "
        "is one a direction; the newest version that is prepared where none is given."
    )
    key_language: str = Field("en", description=_KEY_LANGUAGE + " Where it is no side, the first language.")


class AnyPairs(_Reading):
    """Files of pairs, or TFDS datasets, whose kind follows from the pattern.

    .tsv, .jsonl and .parquet (and .gz, .xz, .zst or .bz2 behind it) are these, with source and target in the first two
    columns or those of these names; a pattern with {language} is parallel text; `tfds:NAME/{source}_{target}` is TFDS.
    """

    texts = "pairs"
    kind: Literal["any"] = Field(description="How the corpus is read.")
    key_language: str = Field("en", description=_KEY_LANGUAGE)


Read = Annotated[
    JsonTables
    | Gettext
    | HtmlTables
    | Descriptions
    | Sqlite
    | ParallelText
    | PlainText
    | Tsv
    | Jsonl
    | Parquet
    | TfdsDataset
    | AnyPairs,
    Field(discriminator="kind"),
]
