"""Output on the terminal: progress of long work, and consoles for tables. All commands share it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Task as BarTask
from rich.text import Text

from nmt.progress import Task

BYTES = "bytes"
LOG_SECONDS = 60.0  # between two lines about the same task where there is no terminal
PIPED_WIDTH = 200  # columns of a table in a file or a pipe


def table_console(width: int = PIPED_WIDTH, *, to_error: bool = False) -> Console:
    """Return a console for tables; files and pipes get lines of `width` columns, unless $COLUMNS says otherwise."""
    console = Console(stderr=to_error)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=to_error, width=width)


def print_line(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours, not broken at the width of the terminal."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class TerminalProgress:
    """Shows progress (`nmt.progress.Reporter`): bars on a terminal, which vanish at the end; lines in a log elsewhere.

    Args:
      console: where; None: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._lock = threading.Lock()
        self._bars: Progress | None = None  # there while any task runs
        self._running = 0

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        print_line(self._console, line)

    def warn(self, line: str) -> None:
        """Print a warning in one line."""
        self.say(f"warning: {line}")

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Show a bar while the block runs; where there is no terminal, a line a minute."""
        if not self._console.is_terminal or self._console.quiet:
            yield _Log(self.say, description, total)
            return
        with self._shared_bars() as bars:
            number = bars.add_task(description, total=total, unit=unit)
            try:
                yield _Bar(bars, number, total)
            finally:
                bars.refresh()  # its last state is seen, however short it was
                bars.remove_task(number)

    @contextmanager
    def wait(self, description: str) -> Iterator[None]:
        """Show a spinner while the block runs; where there is no terminal, a line when it begins."""
        if not self._console.is_terminal:
            self.say(description)
            yield
            return
        with self.track(description):
            yield

    @contextmanager
    def _shared_bars(self) -> Iterator[Progress]:
        """Yield the one display that all tasks share: a console can have no two."""
        with self._lock:
            if self._bars is None:
                self._bars = Progress(
                    SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), _Amount(),
                    TimeRemainingColumn(elapsed_when_finished=True), console=self._console, transient=True,
                )  # fmt: skip
                self._bars.start()
            bars = self._bars
            self._running += 1
        try:
            yield bars
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    bars.stop()
                    self._bars = None


class _Log:
    """Tells of a task in lines, of which the first comes after a minute."""

    def __init__(self, say: Callable[[str], None], description: str, total: int | None) -> None:
        self._say, self._description, self._total, self._last = say, description, total, time.monotonic()

    def update(self, done: int | None, description: str | None = None) -> None:
        """Print the description and the share that is done, unless a line came within the last minute."""
        self._description = description or self._description
        if time.monotonic() - self._last >= LOG_SECONDS:
            share = f" ({min(done / self._total, 1):.0%})" if done and self._total else ""
            self._say(f"{self._description}{share}")
            self._last = time.monotonic()


class _Bar:
    """Shows a task as a bar."""

    def __init__(self, bars: Progress, number: TaskID, total: int | None) -> None:
        self._bars, self._number, self._total = bars, number, total

    def update(self, done: int | None, description: str | None = None) -> None:
        """Move the bar; it pulses where the total is unknown, and is full where the present step cannot be counted."""
        total = None if self._total is None else max(done or 0, self._total)
        self._bars.update(self._number, description=description, completed=total if done is None else done, total=total)


class _Amount(ProgressColumn):
    """The amount that is done: 3/10 sentences; for bytes also the speed; empty for a task without a unit."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._speed = DownloadColumn(), TransferSpeedColumn()

    def render(self, task: BarTask) -> Text:
        """Return the text of the column."""
        unit = task.fields["unit"]
        if not unit:
            return Text()
        if unit == BYTES:
            return Text(" ").join([self._bytes.render(task), self._speed.render(task)])
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}/{total} {unit}")
