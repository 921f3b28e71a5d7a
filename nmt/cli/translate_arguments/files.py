"""Options of nmt-translate that say what is read and where translations go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.cli.translate_arguments.scores import ScoreArguments
    from nmt.decode.documents.units import DocumentFormat


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The text and the output."""

    title: ClassVar[str] = "Files"

    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="The text, UTF-8. Default, and for -: standard input.")
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write here; FILE.partial keeps what is done until all is, and the same command continues it. "
            "Default: standard output.",
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="lines, jsonl, tsv, srt or vtt. Default: by the name of the file, else lines."
        ),
    ] = None
    column: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Column of a table to translate, counted from 1, or its title; several with commas."
        ),
    ] = None
    header: Annotated[bool, typer.Option("--header", help="The first line of a table has titles.")] = False
    json_field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Field of JSON lines with the text; a.b is b of the object a. Default: text."
        ),
    ] = None
    json_result: Annotated[
        str | None, typer.Option(metavar="NAME", help="Field of JSON lines for translations. Default: translation.")
    ] = None
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Put translations of columns or fields in the place of their text, not beside."),
    ] = False
    on_error: Annotated[
        Literal["replace", "refuse"],
        typer.Option(help="Replace bytes that are not UTF-8 by U+FFFD, or refuse a text that has some."),
    ] = "replace"
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where an interrupted output could be continued.")
    ] = False
    progress: Annotated[
        bool, typer.Option(help="Show on standard error how much is done, how fast, and the time left.")
    ] = True

    @property
    def from_stdin(self) -> bool:
        """Whether the text comes from standard input."""
        return self.file in (None, "-")

    def kind(self) -> str:
        """Return the kind of document, one of `nmt.decode.documents.kinds.KINDS`.

        Raises:
          UserError: there is no such kind, or options are those of another.
        """
        from nmt.decode.documents.kinds import JSONL, LINES, TSV, document_kind

        kind = document_kind(None if self.from_stdin else self.file, self.format)
        table = self.column is not None or self.header
        records = self.json_field is not None or self.json_result is not None
        if self.format is None and kind == LINES and table != records:
            kind = TSV if table else JSONL
        if table and kind != TSV:
            raise UserError(f"--column and --header are for tables (--format tsv), not for {kind}")
        if records and kind != JSONL:
            raise UserError(f"--json-field and --json-result are for JSON lines (--format jsonl), not for {kind}")
        if self.replace and kind not in (TSV, JSONL):
            raise UserError(f"--replace is for tables and JSON lines (--format tsv, jsonl), not for {kind}")
        if self.replace and self.json_result is not None:
            raise UserError("--replace and --json-result exclude each other")
        if kind == TSV and self.column is None:
            raise UserError("the text is a table: --column says what to translate; --format lines takes whole lines")
        return kind

    def document_format(self, scores: "ScoreArguments") -> "DocumentFormat":
        """Return the format of the document.

        Raises:
          UserError: see `kind`; or scores are asked for where there is no place for them.
        """
        from nmt.decode.documents.json_lines import JsonLines
        from nmt.decode.documents.kinds import JSONL, LINES, TSV, VTT
        from nmt.decode.documents.plain import PlainLines
        from nmt.decode.documents.subtitles import Subtitles
        from nmt.decode.documents.table import Table

        kind = self.kind()
        if kind == LINES:
            return PlainLines(scores.render)
        if kind == TSV:
            columns = tuple(one.strip() for one in str(self.column).split(","))
            return Table(columns, self.header, self.replace, scores.render)
        if kind == JSONL:
            field = self.json_field or "text"
            return JsonLines(field, field if self.replace else self.json_result, scores.json_fields)
        if scores.wanted:
            raise UserError(
                "--scores, --token-scores and --align are for lines, tables and JSON lines, not for subtitles"
            )
        return Subtitles(escaped=kind == VTT)

    def identity(self) -> Mapping[str, Any]:
        """Return the options on which the output depends."""
        names = ("column", "header", "json_field", "json_result", "replace", "on_error")
        return {"format": self.kind(), **{name: getattr(self, name) for name in names}}
