"""Sizes of the chunks in which a long text is translated."""

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_CHUNK = 16
LARGEST_CHUNK = 4096
CHUNK_SECONDS = 8.0


@dataclass
class ChunkSizes:
    """Sizes that begin small, so that there is output soon, and grow as long as a chunk is done within some seconds.

    Large chunks are quicker: their sentences fill the batches of the search. A chunk is also what is lost when a
    process is killed. Translations do not depend on the sizes.

    Attributes:
      size: texts of the next chunk.
      largest: most texts of a chunk.
      smallest: fewest texts of a chunk after the first.
      seconds: time that a chunk should take.
    """

    size: int = FIRST_CHUNK
    largest: int = LARGEST_CHUNK
    smallest: int = FIRST_CHUNK
    seconds: float = CHUNK_SECONDS

    def __post_init__(self) -> None:
        self.size = min(self.size, self.largest)

    def adapt(self, texts: int, seconds: float) -> None:
        """Choose the next size after a chunk of so many texts took so long; at most twice the former one."""
        if texts < self.size and seconds < self.seconds:
            return  # there were no more: it says nothing about larger ones
        factor = min(2.0, max(0.5, self.seconds / max(seconds, 1e-3)))
        self.size = max(min(self.smallest, self.largest), min(self.largest, int(self.size * factor)))


@dataclass
class Stopwatch:
    """Seconds since it was started."""

    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._start = self.clock()

    def restart(self) -> float:
        """Return the seconds since the start, and start again."""
        start, self._start = self._start, self.clock()
        return self._start - start
