"""Progress that a test can look at afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class RecordedProgress:
    """Keeps what it is told: lines (warnings among them), and updates as (description, done, total)."""

    lines: list[str] = field(default_factory=list)
    updates: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(f"warning: {line}")

    @contextmanager
    def track(self, description: str, total: int | None = None, unit: str = "") -> Iterator["RecordedTask"]:
        yield RecordedTask(self, description, total)

    @contextmanager
    def wait(self, description: str) -> Iterator[None]:
        self.lines.append(description)
        yield


@dataclass
class RecordedTask:
    progress: RecordedProgress
    description: str
    total: int | None

    def update(self, done: int | None, description: str | None = None) -> None:
        self.description = description or self.description
        self.progress.updates.append((self.description, done, self.total))
