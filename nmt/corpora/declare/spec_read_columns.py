"""The sections of a declaration on how tables with a column a language are read."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from nmt.corpora.declare.spec_read_base import KEY_LANGUAGE, PatternSection


def _check_column(column: Any) -> Any:
    """Check a column in one place, since an error of a union would name the types that it could be."""
    if isinstance(column, bool) or not (column if isinstance(column, str) else isinstance(column, int) and column >= 0):
        raise ValueError(f"a column is a name, or a number from 0, not {column!r}")
    return column


_Column = Annotated[int | str, BeforeValidator(_check_column)]


class Columns(PatternSection):
    """Files with a row a line (or record) and a column a language."""

    key_language: str = Field("en", description=KEY_LANGUAGE + " Where it is no column, the first one.")
    columns: dict[str, _Column] = Field(
        {},
        description="Column of each language: number from 0, name, or dotted path in JSON; `source`, `target` and "
        "`language` stand for the languages of {source}, {target} and {language}. Empty: with {source} and {target}, "
        "the columns source and target, or those of the names of the two languages, or without names 0 and 1; with "
        "`id`, the column text; else every column whose name is a language and that has text.",
    )
    component: _Column | None = Field(
        None,
        description="Column of the component, which is never divided among splits, such as the document. Null: the "
        "component is that of the path.",
    )
    id: _Column | None = Field(
        None,
        description="Column of the key that rows of one meaning share in files of a language each, such as `id` in "
        "FLORES+; files whose paths differ in {language} only belong together. Null: a row has all its languages.",
    )

    @model_validator(mode="after")
    def _a_column_for_each_language(self) -> Self:
        languages: dict[int | str, str] = {}
        for language, column in self.columns.items():
            if (other := languages.setdefault(column, language)) != language:
                raise ValueError(f"columns: {other} and {language} are both column {column}: say one for each")
        return self

    @model_validator(mode="after")
    def _a_file_for_each_language(self) -> Self:
        if self.id is not None:
            self.require_once("language")
            if self.columns.keys() - {"language"}:
                raise ValueError("with id, files have one language each: columns is {language: NAME}")
        return self

    def check_numbers(self) -> None:
        """Raise a ValueError where a column has a name, in files without a line of names."""
        used = (*self.columns.values(), self.component, self.id)
        if named := [column for column in used if isinstance(column, str)]:
            raise ValueError(f"column {named[0]!r} has a name: say header: true, or its number from 0")
        if self.id is not None and not self.columns:
            raise ValueError("with id, say which column has the text, as in columns: {language: 1}, or header: true")


class Tsv(Columns):
    """Columns of text separated by tabs."""

    kind: Literal["tsv"] = Field(description="How the corpus is read.")
    header: bool = Field(False, description="Whether the first line has the names of the columns.")
    quoted: bool | None = Field(
        None,
        description="true: a cell may stand in double quotes, with line breaks, tabs and doubled quotes in it, as "
        "spreadsheets write them. false: quotes are text. Null: quotes are text; it is an error if the first lines of "
        "a file look quoted, and later ones that do are left out and counted.",
    )

    @model_validator(mode="after")
    def _numbers_without_header(self) -> Self:
        if not self.header:
            self.check_numbers()
        return self


class Csv(Columns):
    """Rows of cells by RFC 4180: a cell in double quotes may have delimiters, line breaks and doubled quotes."""

    kind: Literal["csv"] = Field(description="How the corpus is read.")
    header: bool = Field(True, description="Whether the first row has the names of the columns.")
    delimiter: str = Field(
        ",", min_length=1, max_length=1, description="Character between cells, such as a semicolon or a tab."
    )
    escape: str = Field(
        "",
        max_length=1,
        description="Character before a quote that ends no cell, such as a backslash. Empty: quotes are doubled.",
    )

    @model_validator(mode="after")
    def _numbers_without_header(self) -> Self:
        if not self.header:
            self.check_numbers()
        if self.delimiter in '"\r\n':
            raise ValueError(f"delimiter: {self.delimiter!r} cannot stand between cells")
        return self


class Jsonl(Columns):
    """A JSON object a line."""

    kind: Literal["jsonl"] = Field(description="How the corpus is read.")


class Json(Columns):
    """JSON files that are a list of objects, or have one under a key, or are objects one after another."""

    kind: Literal["json"] = Field(description="How the corpus is read.")
    records: str | None = Field(
        None,
        min_length=1,
        description="Key of the list of objects, such as data, or keys joined by dots. Null: the file is the list, or "
        "has one only.",
    )


class Parquet(Columns):
    """Parquet files (extra `parquet`)."""

    kind: Literal["parquet"] = Field(description="How the corpus is read.")


class Arrow(Columns):
    """Arrow files, and folders that `save_to_disk` of Hugging Face's datasets wrote (extra `parquet`)."""

    kind: Literal["arrow"] = Field(description="How the corpus is read.")
