"""The sections of a declaration on how tables with a column a language are read."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, PatternSection

_Column = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]


class Columns(PatternSection):
    """Files with a row a line (or record) and a column a language."""

    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no column, the first one.")
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
