"""How long work tells of itself, without knowing who listens: `nmt.recipes.terminal` shows it to a person."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """Work under way, which tells how much of it is done."""

    def update(self, done: int | None, description: str | None = None) -> None:
        """Tell how much is done by now, in the task's unit; None: what is done now cannot be counted.

        Args:
          done: the sum since the beginning, not an increment.
          description: what is being done from now on; None: the same as before.
        """


class Progress(Protocol):
    """Whoever is told of progress. All methods may be called from several threads."""

    def say(self, line: str) -> None:
        """Tell a line."""

    def warn(self, line: str) -> None:
        """Tell a warning, in one line."""

    def track(self, description: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Task]:
        """Begin work that can be counted; it ends with the block.

        Args:
          description: a few words that say what is done.
          total: how much there is, about; None: unknown.
          unit: what is counted, such as "bytes" or "sentences"; empty: the description says it.
        """

    def wait(self, description: str) -> AbstractContextManager[None]:
        """Begin work that cannot be counted; it ends with the block."""


class Silent:
    """Progress of which nobody is told; also its own task."""

    def say(self, line: str) -> None:
        """Tell nobody."""

    def warn(self, line: str) -> None:
        """Tell nobody."""

    def update(self, done: int | None, description: str | None = None) -> None:
        """Tell nobody."""

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Task]:
        """Do the work of the block."""
        yield self

    @contextmanager
    def wait(self, description: str) -> Iterator[None]:
        """Do the work of the block."""
        yield


SILENT = Silent()
