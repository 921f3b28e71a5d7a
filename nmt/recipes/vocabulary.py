"""The vocabulary by itself: learning it for a recipe, and the report of how it covers each language."""

import os
from collections.abc import Iterable, Sequence
from typing import Literal

from etils import epath
from rich.table import Table

from nmt.config import Recipe
from nmt.config.runs import RECIPE_FILE, keep_normalisation, read_run_recipe, save_recipe
from nmt.corpora.clean import normalise
from nmt.data.adoption import adopt
from nmt.data.coverage import CHANGED, LOST, TITLES, cells, measure_coverage
from nmt.data.vocab import Vocabulary, read_model
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
    recipe = keep_normalisation(recipe, folder)
    if not (folder / RECIPE_FILE).exists():
        save_recipe(recipe, folder)
    RunPreparation(recipe, folder, TerminalProgress()).vocabularies()
    report(os.fspath(folder), ())


def report(run_or_model: str, lines: Iterable[str]) -> None:
    """Show the report of a run, or of a model on lines of text.

    Args:
      run_or_model: a run's folder, or a file that `vocab.model` takes: a vocabulary of a run, or any SentencePiece
        model, which gets the tags and ids that a run would give it.
      lines: the text; it is brought to the form of training text first.

    Raises:
      UserError: neither a run with a report nor a SentencePiece model.
    """
    path = epath.Path(run_or_model)
    if path.is_dir():
        read_run_recipe(path)
        tables = [path / "vocab" / f"{name}.tsv" for name in _REPORTS]
        found = [table for table in tables if table.exists()]
        if not found:
            raise UserError(f"{path} has no report of its vocabulary: nmt-vocab recipe=... run_dir={path} learns one")
        for table in found:
            titles, *rows = [line.split("\t") for line in table.read_text().split("\n") if line]
            _show(table.stem, titles, rows)
        return
    vocabulary = Vocabulary(adopt(read_model(path), str(path), ()), str(path))
    texts = {"text": [text for text in map(normalise, lines) if text]}
    if not texts["text"]:
        raise UserError(f"no text to report {path} on: give it on standard input")
    title = f"{path.name} (rule of normalisation: {vocabulary.normalisation})"
    _show(title, TITLES, [cells(row) for row in measure_coverage(vocabulary, texts)])


def _show(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show the rows of a report as a table, and below it the characters that do not come back, language by language."""
    shown = [name for name in titles if name != LOST]
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in shown:
        last = name == shown[-1]
        justify: Literal["left", "right"] = "left" if last or name == shown[0] else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=None if last else max(7, len(name)))
    named = [dict(zip(titles, row, strict=True)) for row in rows]
    for row in named:
        table.add_row(*(row[name] for name in shown))
    console = table_console(140)
    console.print(table)
    for row in named:
        if row.get(LOST):
            line = f"{row[shown[0]]}: {row[CHANGED]} of lines do not come back from encode and decode: {row[LOST]}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
