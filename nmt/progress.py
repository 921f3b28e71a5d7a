"""Progress of long work: the code that does it reports to a `Reporter`; `nmt.recipes.terminal` shows it to a person."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """Work under way, through which its progress is reported."""

    def update(self, done: int | None, description: str | None = None) -> None:
        """Report how much is done.

        Args:
          done: the amount since the beginning, in the task's unit (not an increment); None: the present step cannot be
            counted.
          description: a few words about the present step; None: as before.
        """


class Reporter(Protocol):
    """Shows or records progress. All methods may be called from several threads."""

    def say(self, line: str) -> None:
        """Report a line of text."""

    def warn(self, line: str) -> None:
        """Report a warning of one line."""

    def track(self, description: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Task]:
        """Return a context manager for work that can be counted.

        Args:
          description: a few words about the work.
          total: amount of all the work, approximately; None: unknown.
          unit: unit of amounts, such as "bytes" or "sentences"; empty: descriptions contain the amounts.
        """

    def wait(self, description: str) -> AbstractContextManager[None]:
        """Return a context manager for work that cannot be counted."""


class Silent:
    """A `Reporter` that shows nothing; also its own `Task`."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def warn(self, line: str) -> None:
        """Show nothing."""

    def update(self, done: int | None, description: str | None = None) -> None:
        """Show nothing."""

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Show nothing while the block runs."""
        yield self

    @contextmanager
    def wait(self, description: str) -> Iterator[None]:
        """Show nothing while the block runs."""
        yield


SILENT = Silent()
