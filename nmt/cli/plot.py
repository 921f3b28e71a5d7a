"""nmt-plot: pictures of a run: how it learnt, and which languages use which experts."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nmt.cli.shell import command_name, parsed, run_command
from nmt.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from nmt.train.usage import Usage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_PICTURES = ("run", "experts")


class Format(StrEnum):
    """The formats of pictures."""

    SVG = "svg"
    PNG = "png"
    PDF = "pdf"


class PlotArguments(NamedTuple):
    """The parsed arguments of nmt-plot."""

    run: str
    what: tuple[str, ...]
    step: int | None
    output: str | None
    format: Format


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def plot(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.")],
    what: Annotated[
        str | None,
        typer.Option(metavar="PICTURES", help="run, experts, or run,experts. Default: what there is to draw."),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Step of the table of experts and of the scores. Default: the newest."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where pictures are written. Default: RUN/plots.")
    ] = None,
    suffix: Annotated[Format, typer.Option("--format", help="Format of the pictures.")] = Format.SVG,
) -> PlotArguments:
    """Draw the curves of a run (loss, load of experts, scores) and heat maps of which languages use which experts.

    The paths of the pictures go to standard output, after a table of how much the experts of each layer specialise.
    The run may be under way.
    """
    return PlotArguments(run, _pictures(what), step, output, suffix)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    if request := parsed(app, PlotArguments):
        _plot(request)


def _pictures(text: str | None) -> tuple[str, ...]:
    """Return the names in a list with commas; none: whatever there is to draw."""
    names = [] if text is None else [name.strip() for name in text.split(",") if name.strip()]
    for name in names or ([] if text is None else [""]):
        if name not in _PICTURES:
            raise UserError(f"there is no picture {name!r}{did_you_mean(name, _PICTURES)} (--what run,experts)")
    return tuple(dict.fromkeys(names))


def _plot(request: PlotArguments) -> None:
    import sys

    from nmt.evaluate.pictures import draw_pictures

    drawn = draw_pictures(request.run, request.what, request.step, request.output, request.format.value)
    for note in drawn.notes:
        print(f"{command_name()}: {note}", file=sys.stderr)
    if drawn.usage:
        show_specialisations(drawn.usage)
    print(*drawn.paths, sep="\n")


def show_specialisations(usage: "Usage", console: "Console | None" = None) -> None:
    """Print one line a sparse layer, by default on standard output."""
    from rich.table import Table
    from rich.text import Text

    from nmt.evaluate.specialisation import specialisations
    from nmt.recipes.terminal import table_console

    title = f"experts by direction, steps {usage.first} to {usage.last}"
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for number, name in enumerate(("layer", "information", "of possible", "stands out most", "by its expert")):
        table.add_column(name, justify="right" if number in (1, 2) else "left", no_wrap=True)
    for entry in specialisations(usage):
        share = entry.information / entry.possible if entry.possible else 0.0
        bits = f"{entry.information:.3f} bits"
        favourite = f"{entry.expert}: {entry.share:.1%} of its tokens, {entry.overall:.1%} of all"
        named = [entry.direction, favourite] if entry.direction else ["", ""]
        table.add_row(f"{entry.stack} {entry.layer}", bits, f"{share:.1%}", *named)
    (console or table_console()).print(table, soft_wrap=True)


if __name__ == "__main__":
    main()
