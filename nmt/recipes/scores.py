"""The matrix of scores on the terminal."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from nmt.evaluate.heat import background, foreground
from nmt.evaluate.report import NONE, Sheet, average_lines, fault_lines, left_out_lines, sheet, signatures
from nmt.evaluate.results import Matrix
from nmt.recipes.terminal import table_console


def show_matrix(matrix: Matrix, console: Console | None = None) -> None:
    """Print the matrix on a terminal, by default on standard output; lines too long for it are not broken up."""
    (console or table_console()).print(_rendered(matrix), soft_wrap=True)


def _rendered(matrix: Matrix) -> RenderableType:
    """Return the matrix for the terminal: a table, the directions left out, and the signatures."""
    title = f"{matrix.recipe}, step {matrix.step}, {matrix.test_set}"
    table = sheet(matrix)
    lines = [] if table.averages else [Text(line, style="bold") for line in average_lines(matrix)]
    lines += [Text(line, style="yellow") for line in fault_lines(matrix)]
    lines += [Text(f"left out: {line}", style="yellow") for line in left_out_lines(matrix)]
    lines += [Text(f"{label}: {signature}", style="dim") for label, signature in signatures(matrix)]
    return Group(_table(table, title), *lines)


def _table(content: Sheet, title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column, name in enumerate(content.heading):
        table.add_column(name, justify="right" if column else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*([row[0], *map(_heated, row[1:])] if content.heat else row))
    table.add_section()
    for row in content.averages:
        table.add_row(*row, style="bold")
    return table


def _heated(bleu: str) -> Text:
    if bleu == NONE:
        return Text(bleu, style="dim")
    return Text(bleu, style=f"{foreground(float(bleu))} on {background(float(bleu))}")
