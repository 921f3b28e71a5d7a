"""Options of nmt-translate that say how translations are searched for."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """The search: keywords of `Translator.translate_scored`; None is the recipe's value."""

    title: ClassVar[str] = "Search"

    beam: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Beam width, 1 is greedy. Default: the recipe's.")
    ] = None
    length_penalty: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Exponent of the length normalisation. Default: the recipe's."),
    ] = None
