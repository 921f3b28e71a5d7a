"""The vocabulary by itself: learning it for a recipe, and the report of how it covers each language."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from etils import epath
from rich.table import Table

from nmt.config import Recipe
from nmt.config.runs import RECIPE_FILE, read_run_recipe, save_recipe
from nmt.data.coverage import TITLES, Coverage, cells, measure_coverage
from nmt.data.vocab import Vocabulary
from nmt.errors import UserError
from nmt.recipes.stages import RunPreparation
from nmt.recipes.terminal import TerminalProgress, table_console

_REPORTS = ("coverage", "coverage.source", "coverage.target")


def learn_vocabulary(recipe: Recipe) -> None:
    """Learn the vocabulary of a recipe into RUN/vocab, unless it is there, and show the report.

    Raises:
      UserError: the folder has a vocabulary that was learnt from another input, or a run of another recipe.
    """
    folder = epath.Path(recipe.run_dir)
    if not (folder / RECIPE_FILE).exists():
        save_recipe(recipe, folder)
    RunPreparation(recipe, folder, TerminalProgress()).vocabularies()
    report(os.fspath(folder), ())


def report(run_or_model: str, lines: Iterable[str]) -> None:
    """Show the report of a run, or of a model on lines of text.

    Raises:
      UserError: neither a run with a report nor a vocabulary.
    """
    path = epath.Path(run_or_model)
    if path.is_dir():
        read_run_recipe(path)
        tables = [path / "vocab" / f"{name}.tsv" for name in _REPORTS]
        found = [table for table in tables if table.exists()]
        if not found:
            raise UserError(f"{path} has no report of its vocabulary: nmt-vocab recipe=... run_dir={path} learns one")
        for table in found:
            _show(table.stem, [line.split("\t") for line in table.read_text().splitlines()[1:]])
        return
    vocabulary = Vocabulary.load(path)
    texts = {"text": [line for line in lines if line.strip()]}
    if not texts["text"]:
        raise UserError(f"no text to report {path} on: give it on standard input")
    _show(path.name, _rows(measure_coverage(vocabulary, texts)))


def _rows(found: Iterable[Coverage]) -> list[Sequence[str]]:
    return [cells(row) for row in found]


def _show(title: str, rows: Sequence[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in TITLES:
        last = name == TITLES[-1]
        justify: Literal["left", "right"] = "left" if last or name == TITLES[0] else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=None if last else max(7, len(name)))
    for row in rows:
        table.add_row(*row)
    table_console(140).print(table)
