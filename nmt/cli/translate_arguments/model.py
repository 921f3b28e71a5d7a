"""Options of nmt-translate that say with which model, and from which language to which."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import typer


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """The model and the direction."""

    title: ClassVar[str] = "Model and languages"

    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.")]
    source: Annotated[str, typer.Option("--from", metavar="LANGUAGE", help="Language of the text: de, deu, de-DE, ...")]
    target: Annotated[str, typer.Option("--to", metavar="LANGUAGE", help="Language wanted.")]
    step: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Step of the checkpoint. Default: the newest.")
    ] = None
    domain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Kind of text, where the run has data.domain_tags. Default: none."),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Precision of weights: float32, bfloat16, int8, or auto for the fastest here. "
            "Default: what the model was trained in.",
        ),
    ] = None
