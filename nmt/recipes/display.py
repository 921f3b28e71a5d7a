"""The display of a run in training: a live panel on a terminal, a line every ten seconds elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nmt.train.telemetry import WindowReport

_LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


def clock(seconds: float) -> str:
    """Return a duration as 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TrainingDisplay:
    """Shows reports; a context manager, so that the panel is taken down whatever happens.

    Args:
      console: where to show them.
      steps: steps of the whole run.
      max_seconds: the run's limit of time, which may come before its last step.
    """

    def __init__(self, console: Console, steps: int, max_seconds: float | None):
        self._console, self._steps, self._max_seconds = console, steps, max_seconds
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Show a line of text, above the panel if there is one."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def report(self, report: WindowReport, full: bool) -> None:
        """Show the steps since the last full window: at once on a terminal, elsewhere when a window is full."""
        if self._live:
            self._live.update(self._panel(report))
        now = time.monotonic()
        due = now - self._last_line >= _LINE_EVERY or report.progress.step == self._steps
        if full and due:
            self._last_line = now
            self.say(self.line(report))

    def eta(self, report: WindowReport) -> float:
        """Return the seconds that are left, until the last step or the last minute."""
        if self._max_seconds is None:
            return report.eta_seconds
        return max(0.0, min(report.eta_seconds, self._max_seconds - report.progress.seconds))

    def line(self, report: WindowReport) -> str:
        """Return a report on one line."""
        fields = [
            f"step {report.progress.step}/{self._steps}",
            f"loss {report.loss:.3f}",
            f"{report.tokens_per_second:,.0f} tokens/s",
            f"left {clock(self.eta(report))}",
        ]
        for stack, experts in report.experts.items():
            load = f"{experts.idlest:.2f}-{experts.busiest:.2f}"
            fields.append(f"{stack} experts {load}, dropped {experts.dropped[0]:.1%}")
        return "  ".join(fields)

    def _panel(self, report: WindowReport) -> Group:
        progress = report.progress
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"step {progress.step:,}/{self._steps:,}", style="bold"),
            ProgressBar(total=self._steps, completed=progress.step, width=30),
            f"loss {report.loss:.3f}",
            f"{report.tokens_per_second:,.0f} tokens/s",
            f"{clock(progress.seconds)} gone, {clock(self.eta(report))} left",
        )
        directions = Table.grid(padding=(0, 2))
        directions.add_row(
            Text("nats per token", style="dim"), *[f"{name} {nll:.2f}" for name, nll in report.nll.items()]
        )
        experts = Table.grid(padding=(0, 2))
        for stack, numbers in report.experts.items():
            layers = report.layers[stack]
            worst = max(layers, key=lambda number: layers[number].busiest)
            dropped = f"tokens dropped {numbers.dropped[0]:.1%}"
            experts.add_row(
                Text(f"{stack} experts", style="dim"),
                f"busiest {numbers.busiest:.2f} x fair share (layer {worst})",
                f"idlest {numbers.idlest:.2f} x",
                dropped + (f" (later choices {sum(numbers.dropped[1:]):.1%})" if numbers.dropped[1:] else ""),
                f"router {numbers.confidence:.0%} sure",
            )
        return Group(head, directions, experts)
