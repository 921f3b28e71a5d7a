"""Output that is kept while it is not complete: a process that is killed at any point loses a chunk, and no line twice.

While OUT is being written there are OUT.partial, with the output so far, and OUT.partial.json, which says how much of
it counts and for which text, model and options it was made. OUT itself appears when all is done.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from nmt.decode.documents.packing import packing
from nmt.decode.documents.units import LineNumbers
from nmt.decode.stream import StreamReport
from nmt.errors import UserError

_NUMBERS = ("split", "normalised", "unknown", "loops", "digits")  # of a report, what only those who translate know


class ReadLines:
    """Lines that pass on their way to be translated, and a digest of those whose translation is written."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self._digest = hashlib.sha256()
        self._passed = bytearray()  # since the digest
        self._done = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines."""
        for line in self._lines:
            self._passed += line
            yield line

    def digest(self, size: int) -> str:
        """Return the SHA-256 of the first `size` bytes, no fewer than at the last call."""
        taken = size - self._done
        self._digest.update(self._passed[:taken])
        del self._passed[:taken]
        self._done = size
        return self._digest.hexdigest()


class PartialOutput:
    """The output of a file that may be interrupted, and continued by another process.

    Args:
      path: the file.
      identity: texts that say what the output depends on, by name: those of a partial output must be the same.
      restart: whether a partial output is dropped.

    Attributes:
      report: the amount that an earlier process did; its texts need no translation.

    Raises:
      UserError: there is a partial output of another identity, another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], restart: bool = False) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self._state = path.with_name(f"{path.name}.partial.json")
        self._identity = dict(identity)
        self._pack = packing(path.name)
        self._digest = ""
        self._lines = ReadLines(())
        self.report = StreamReport()
        self._file = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"another process is writing {self.partial}") from None
        except OSError:
            pass  # some shared file systems have no locks
        written = 0 if restart else self._resume()
        os.ftruncate(self._file, written)
        os.lseek(self._file, 0, os.SEEK_END)
        self._written = written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        if not self._written:
            self._drop()

    def watch(self, lines: Iterable[bytes]) -> Iterable[bytes]:
        """Return the lines of the text, from its beginning, so that it is known which of them are done."""
        self._lines = ReadLines(lines)
        return self._lines

    def check_read(self) -> None:
        """Raise UserError if the lines that an earlier process translated are not those that were just read again."""
        if self._digest and self._lines.digest(self.report.read) != self._digest:
            raise self._other("text")

    def write(self, output: bytes, report: StreamReport) -> None:
        """Append output, and record how much is done with it."""
        if output:
            packed = self._pack(output)
            while packed:
                count = os.write(self._file, packed)
                self._written += count
                packed = packed[count:]
        os.fsync(self._file)
        state = {
            "identity": self._identity,
            "written": self._written,
            "read": report.read,
            "read_sha256": self._lines.digest(report.read),
            "lines": report.lines,
            "texts": report.texts,
            **{name: asdict(getattr(report, name)) for name in _NUMBERS},
        }
        temporary = self._state.with_name(f"{self._state.name}.tmp")
        temporary.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._state)
        self.report = report

    def finish(self) -> None:
        """Give the file its name: all is done."""
        if not self._written and (empty := self._pack(b"")):
            os.write(self._file, empty)
        self.partial.replace(self.path)
        self._written = 0
        self._drop()

    def _drop(self) -> None:
        for path in (self._state, self.partial):
            with contextlib.suppress(OSError):
                path.unlink()

    def _resume(self) -> int:
        """Take over what an earlier process did; return the bytes of its output that count."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
            if state["written"] > os.fstat(self._file).st_size or not state["written"]:
                return 0
            self.report = StreamReport(state["lines"], state["texts"], state["read"])
            for name in _NUMBERS:
                setattr(self.report, name, LineNumbers(**state[name]))
            self._digest = state["read_sha256"]
            identity = state["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            self.report = StreamReport()
            return 0
        if different := [name for name, value in self._identity.items() if identity.get(name) != value]:
            os.close(self._file)
            raise self._other(" and ".join(different))
        return int(state["written"])

    def _other(self, name: str) -> UserError:
        return UserError(
            f"{self.partial} has {self.report.lines:,} lines for another {name}: "
            "continue it with the same, or begin anew with --restart"
        )
