"""Options of nmt-translate that say what is read and where translations go."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The text and the output."""

    title: ClassVar[str] = "Files"

    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="UTF-8 text. Default, and for -: standard input.")
    ] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here, once all is done. Default: standard output."),
    ] = None
