"""Files of nmt-translate: the text that is read, and the output that is written."""

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from nmt.cli.translate_arguments.files import FileArguments
from nmt.errors import UserError
from nmt.files import atomic_write, is_remote

if TYPE_CHECKING:
    from nmt.decode.documents.units import DocumentFormat, DocumentUnit
    from nmt.decode.stream import StreamReport

Write = Callable[[bytes, "StreamReport"], None]
_REASONS = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up"}


def check_files(files: FileArguments) -> None:
    """Raise UserError for mistakes in the names of files and their formats, before anything is loaded."""
    from etils import epath

    from nmt.decode.documents.packing import packing

    files.kind()
    if not files.from_stdin:
        if not (file := epath.Path(str(files.file))).exists():
            raise UserError(f"cannot read {files.file}: there is no such file")
        if file.is_dir():
            raise UserError(f"cannot read {files.file}: it is a folder")
    if files.output is not None:
        if not (parent := epath.Path(files.output).parent).is_dir():
            raise UserError(f"cannot write {files.output}: there is no folder {parent}")
        if epath.Path(files.output).is_dir():
            raise UserError(f"cannot write {files.output}: it is a folder")
        packing(files.output)


@dataclass(frozen=True)
class TextInput:
    """The lines of a text, and whether there is another one without waiting for it."""

    lines: Iterable[bytes]
    ready: Callable[[], bool] = lambda: True


@contextlib.contextmanager
def open_text(files: FileArguments) -> Iterator[TextInput]:
    """Open the text, decompressed according to its name."""
    if files.from_stdin:
        from nmt.decode.documents.pipes import PipeLines

        try:
            pipe = PipeLines(sys.stdin.buffer.fileno())
        except (OSError, AttributeError):  # another program's object in the place of standard input
            yield TextInput(sys.stdin.buffer)
        else:
            yield TextInput(pipe, pipe.ready)
        return
    from etils import epath

    from nmt.corpora.readers.compressed import decompressed

    name = str(files.file)
    try:
        raw = epath.Path(name).open("rb")
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from None
    with raw, decompressed(raw, name.lower()) as file:
        yield TextInput(_read(file, name))


def _read(file: Iterable[bytes], name: str) -> Iterator[bytes]:
    from nmt.corpora.readers.tree import UNREADABLE

    try:
        yield from file
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"cannot read {name}: {reason}") from None


class TextSurvey(NamedTuple):
    """A text that was read once, before it is translated."""

    texts: int  # that will be translated
    digest: str  # SHA-256 of its content


def survey(files: FileArguments, document: "DocumentFormat") -> TextSurvey | None:
    """Read a file to its end, so that its mistakes come first; return None for what can be read only once.

    Raises:
      UserError: the file is damaged, has not the form that it should have, or bytes that are to be refused.
    """
    from nmt.decode.documents.units import LineNumbers, decoded_lines

    if files.from_stdin or not Path(str(files.file)).is_file():
        return None
    digest = hashlib.sha256()

    def hashed(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            digest.update(line)
            yield line

    with open_text(files) as text, _named(files):
        lines = decoded_lines(hashed(text.lines), LineNumbers(), files.on_error)
        texts = sum(len(unit.texts) for unit in document.units(lines))
    return TextSurvey(texts, digest.hexdigest())


@contextlib.contextmanager
def _named(files: FileArguments) -> Iterator[None]:
    """Put the name of the file before mistakes in it."""
    try:
        yield
    except UserError as error:
        message = str(error)
        raise UserError(message if str(files.file) in message else f"{files.file}: {message}") from None


@dataclass(frozen=True)
class TextOutput:
    """The place where translations go.

    Attributes:
      write: takes the output of a chunk, and the report of all that is done with it.
      report: the amount that an earlier process did.
      watch: takes the lines of the text, and returns those that are to be read instead.
      check_read: raises UserError if the lines that the earlier process did are not those that were read again.
    """

    write: Write
    report: "StreamReport"
    watch: Callable[[Iterable[bytes]], Iterable[bytes]] = lambda lines: lines
    check_read: Callable[[], None] = lambda: None


@contextlib.contextmanager
def open_output(files: FileArguments, identity: Mapping[str, str]) -> Iterator[TextOutput]:
    """Open the output: a file appears when the block succeeds, and what was done is kept if it fails.

    Raises:
      UserError: it cannot be written, or was begun with other text, model or options.
    """
    from nmt.decode.stream import StreamReport

    name = files.output
    if name is None:
        yield TextOutput(_writer(sys.stdout.buffer, "standard output"), StreamReport())
    elif is_remote(name):
        from nmt.decode.documents.packing import packing

        with atomic_write(name) as temporary, temporary.open("wb") as file:
            yield TextOutput(_writer(file, name, packing(name)), StreamReport())
    elif Path(name).exists() and not Path(name).is_file():
        with Path(name).open("wb") as special:
            yield TextOutput(_writer(special, name), StreamReport())
    else:
        with _partial_output(files, identity) as output:
            yield output


def _writer(file: BinaryIO, name: str, pack: Callable[[bytes], bytes] = bytes) -> Write:
    def write(output: bytes, report: "StreamReport") -> None:
        try:
            file.write(pack(output))
            file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            # Python would write what is left in its buffer once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
            raise _problem(name, error) from None

    return write


@contextlib.contextmanager
def _partial_output(files: FileArguments, identity: Mapping[str, str]) -> Iterator[TextOutput]:
    from nmt.decode.documents.partial import PartialOutput

    path = Path(str(files.output))
    try:
        opened = PartialOutput(path, identity, files.restart)
    except OSError as error:
        raise _problem(str(path), error) from None
    with opened as partial:
        try:
            yield TextOutput(partial.write, partial.report, partial.watch, partial.check_read)
            partial.finish()
        except BaseException as error:
            kept = f"{partial.partial} keeps the first {partial.report.lines:,} lines; the same command continues there"
            if isinstance(error, OSError):
                raise _problem(str(path), error, kept if partial.report.lines else "") from None
            if partial.report.lines:
                print(f"nmt-translate: note: {kept}", file=sys.stderr)
            raise


def _problem(name: str, error: OSError, kept: str = "") -> UserError:
    reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return UserError(f"cannot write {name}: {reason}" + (f"; {kept}" if kept else ""))


def skip_done(units: "Iterator[DocumentUnit]", done: int) -> None:
    """Take the units whose translations are written, of so many bytes.

    Raises:
      UserError: the text has no unit that ends there, so it is another one.
    """
    read = 0
    while read < done:
        unit = next(units, None)
        if unit is None or (read := read + unit.size) > done:
            raise UserError("the text has changed since its translation began: begin anew with --restart")
