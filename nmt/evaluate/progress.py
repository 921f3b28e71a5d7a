"""The progress of an evaluation on a terminal: one bar, the direction in hand, results as they come."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nmt.evaluate.results import Result
from nmt.languages import Direction


class Display:
    """Callbacks for `nmt.evaluate.matrix.evaluate`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", start=False, visible=False)

    def on_progress(self, direction: Direction, done: int, total: int) -> None:
        """Show how many sentences of a direction are done."""
        if done == 0:
            self._progress.reset(self._task)
        self._progress.update(self._task, description=str(direction), completed=done, total=total, visible=True)

    def on_cell(self, result: Result) -> None:
        """Print the result of a direction above the bar."""
        cell = result.cell
        how = "as before" if result.reused else f"{result.sentences_per_second:.1f} sentences/s"
        self._progress.print(f"{cell.direction!s:<8} BLEU {cell.bleu:5.1f}  chrF++ {cell.chrf:5.1f}  ({how})")


@contextmanager
def shown(console: Console) -> Iterator[Display]:
    """Show the progress of an evaluation while the block runs; without a terminal only the results."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Display(progress)
