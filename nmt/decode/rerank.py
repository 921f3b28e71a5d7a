"""Reranking by a command of the user's, such as an estimate of quality: candidates in, numbers out."""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from nmt.decode.options import SearchOptions
from nmt.decode.ranking import first_indices, widen_search
from nmt.errors import UserError

PATIENCE = 60.0  # seconds without an answer after which a person is told what is waited for


class CommandRanking:
    """Ranks candidates by the numbers that a command gives them, the greatest first.

    The command is started once. It reads lines `source TAB candidate`, and answers each with a line with one number, at
    once: it must not keep its answers in a buffer until its input ends. A context manager, which ends the command.

    Args:
      command: the command and its arguments, as a shell would read them; no shell runs it.
      candidates: how many candidates of each source it is given; None: as many as the beam is wide.

    Raises:
      UserError: the command cannot be started.
    """

    def __init__(self, command: str, candidates: int | None = None):
        self._command, self._candidates = command, candidates
        self._lock = threading.Lock()
        self._answers: SimpleQueue[str | None] = SimpleQueue()
        try:
            # A program in Python would keep its answers in a buffer otherwise.
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            self._process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                encoding="utf-8",
                errors="replace",
                bufsize=1 << 16,
            )
        except (OSError, ValueError, IndexError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "it is empty"
            raise UserError(f"cannot run the reranker {command!r}: {reason}") from None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
            self._process.wait()
            return
        self._close_input()
        if status := self._process.wait():
            raise UserError(f"the reranker {self._command!r} ended with status {status}")
        self._reader.join()
        self._check_no_more()

    def candidate_options(self, options: SearchOptions) -> SearchOptions:
        """Return the options with as many hypotheses as the command is to be given."""
        return widen_search(options, self._candidates or max(options.beam, options.hypotheses))

    def rank(self, sources: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return the indices of the candidates of each source, best first, each text once; of equals the first.

        Raises:
          UserError: the command has ended, or does not answer each line with one number.
        """
        distinct = [first_indices(texts) for texts in candidates]
        fields = [(_one_field(one), own) for one, own in zip(sources, distinct, strict=True)]
        lines = [f"{source}\t{_one_field(text)}\n" for source, own in fields for text in own]
        with self._lock:
            scores = iter(self._ask(lines))
        ranked = []
        for own in distinct:
            scored = [(next(scores), index) for index in own.values()]
            ranked.append([index for _, index in sorted(scored, key=lambda one: (-one[0], one[1]))])
        return ranked

    def _ask(self, lines: Sequence[str]) -> list[float]:
        """Return the number that the command answers to each line."""
        self._check_no_more()
        writer = threading.Thread(target=self._write, args=(lines,), daemon=True)
        writer.start()
        scores = [self._answer(number, len(lines)) for number in range(1, len(lines) + 1)]
        writer.join()
        return scores

    def _answer(self, number: int, count: int) -> float:
        while True:
            try:
                answer = self._answers.get(timeout=PATIENCE)
                break
            except Empty:
                print(
                    f"still waiting for an answer of the reranker {self._command!r}: it must answer each line at once",
                    file=sys.stderr,
                )
        if answer is None:
            status = self._process.wait()
            raise UserError(
                f"the reranker {self._command!r} ended with status {status} after {number - 1} answers to {count} lines"
            )
        try:
            score = float(answer)
        except ValueError:
            score = float("nan")
        if score != score:
            raise UserError(
                f"the reranker {self._command!r} must answer each line with one number (not {answer.strip()[:80]!r})"
            )
        return score

    def _write(self, lines: Sequence[str]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.writelines(lines)
            self._process.stdin.flush()
        except (OSError, ValueError):  # it has ended, which its answers show
            return

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            return

    def _check_no_more(self) -> None:
        """Raise UserError if there is an answer that nobody has asked for."""
        if self._answers.empty():
            return
        answer = self._answers.get()
        if answer is None:  # its end
            self._answers.put(None)
        else:
            raise UserError(f"the reranker {self._command!r} answers more lines than it was given: {answer.strip()!r}")


def _one_field(text: str) -> str:
    """Return a text without line breaks and tabs, so that it is one field of a line."""
    return " ".join(text.split())
