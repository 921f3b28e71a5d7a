"""Progress of nmt-translate: how many sentences are done, how many a second, and how long the rest will take."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta

from nmt.cli.shell import command_name

LOG_SECONDS = 30.0  # between two lines where there is no terminal
_CHUNKS = 8  # of which the speed is taken


class SentenceRate:
    """Counts sentences and describes how many are done, how fast, and the time left.

    Args:
      total: sentences in all; None: unknown.
      before: sentences that were done before.
      clock: seconds.
    """

    def __init__(self, total: int | None, before: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._clock = total, clock
        self._began, self._before = clock(), before
        self._recent = deque([(self._began, before)], maxlen=_CHUNKS + 1)
        self.done = before

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def update(self, done: int) -> None:
        """Take that so many are done."""
        self.done = done
        self._recent.append((self._clock(), done))

    def __str__(self) -> str:
        """Return the state: `1,024 of 3,000 sentences (34%), 51.2 sentences/s, 0:00:39 left`."""
        (first, before), (last, now) = self._recent[0], self._recent[-1]
        rate = (now - before) / (last - first) if last > first else 0.0
        if self.total is None:
            return f"{self.done:,} sentences, {rate:.1f} sentences/s"
        share = 100 * self.done // max(self.total, 1)
        left = f", {_duration((self.total - self.done) / rate)} left" if rate else ""
        return f"{self.done:,} of {self.total:,} sentences ({share}%), {rate:.1f} sentences/s{left}"

    def summary(self) -> str:
        """Return how long all took."""
        done = self.done - self._before
        return f"{done:,} sentences in {_duration(self.seconds)}, {done / max(self.seconds, 1e-3):.1f} sentences/s"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextlib.contextmanager
def show_progress(rate: SentenceRate) -> Iterator[Callable[[int], None]]:
    """Show the progress on standard error: a line that is written over on a terminal, else a line every 30 seconds.

    Yields:
      A function that is told how many sentences are done.
    """
    terminal = sys.stderr.isatty()
    told = rate.seconds

    def update(done: int) -> None:
        nonlocal told
        rate.update(done)
        if terminal:
            print(f"\r{rate}\x1b[K", end="", file=sys.stderr, flush=True)
        elif rate.seconds >= told + LOG_SECONDS and done != rate.total:
            told = rate.seconds
            print(f"{command_name()}: {rate}", file=sys.stderr, flush=True)

    try:
        yield update
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if terminal or rate.seconds >= LOG_SECONDS:
            print(f"{command_name()}: {rate.summary()}", file=sys.stderr)
