"""Lines of a pipe or a terminal: those that are there, without waiting for more."""

import os
import select
from collections import deque
from collections.abc import Iterator

_READ_BYTES = 1 << 16


class PipeLines:
    """Lines of a file descriptor, with their ends.

    Python's own buffered files wait until a whole buffer is full or a line is complete, and cannot tell which. Here
    `ready` says whether there is a line without waiting for it, so that a program that writes one line and waits for
    the answer gets it, and one that writes many is answered many at a time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()  # the beginning of a line
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield every line, waiting for it where necessary."""
        while True:
            while not self._lines and not self._ended:
                self._read()
            if not self._lines:
                return
            yield self._lines.popleft()

    def ready(self) -> bool:
        """Return whether there is another line, or the end, without waiting."""
        while not self._lines and not self._ended and select.select([self._descriptor], [], [], 0)[0]:
            self._read()
        return bool(self._lines) or self._ended

    def _read(self) -> None:
        """Read what is there; wait if there is nothing."""
        content = os.read(self._descriptor, _READ_BYTES)
        *complete, rest = content.split(b"\n")
        for line in complete:
            self._lines.append(bytes(self._rest) + line + b"\n")
            self._rest.clear()
        self._rest += rest
        if not content:
            self._ended = True
            if self._rest:
                self._lines.append(bytes(self._rest))
