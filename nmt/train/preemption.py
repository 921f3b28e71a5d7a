"""Preemption: SIGTERM (from a machine that is taken away) and Ctrl-C end a run after its step, with a checkpoint."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Preemption:
    """A context in which the first SIGTERM or SIGINT sets a flag that loops poll; a second one acts at once.

    It is true once a signal has come.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def __bool__(self) -> bool:
        return self.signal is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
