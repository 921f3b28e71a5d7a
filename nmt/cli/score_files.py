"""The files of nmt-score: which argument is which, and pairs of lines out of them."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from nmt.cli.translate_arguments.files import FileArguments
from nmt.cli.translate_files import open_text
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.decode.documents.units import LineNumbers
    from nmt.decode.line_pairs import LinePair

STANDARD_INPUT = "-"


class Inputs(NamedTuple):
    """The run, if there is one, and the files: a text and its translation, or one file of both."""

    run: str | None
    files: tuple[str, ...]  # one or two

    @classmethod
    def parse(cls, arguments: list[str], run_optional: bool) -> Self:
        """Tell the arguments of the command apart. A run that is optional is there if it is a folder.

        Raises:
          UserError: too many arguments, a file that cannot be read, or two files of different numbers of lines.
        """
        from etils import epath

        has_run = not run_optional or (arguments[0] != STANDARD_INPUT and epath.Path(arguments[0]).is_dir())
        run, files = (arguments[0], arguments[1:]) if has_run else (None, arguments)
        if len(files) > 2:
            raise UserError(f"one file or two, not {len(files)}: {' '.join(files)}")
        files = files or [STANDARD_INPUT]
        if files.count(STANDARD_INPUT) > 1:
            raise UserError(
                "standard input cannot be both the text and its translation; give it two columns, and one -"
            )
        for name in files:
            _check_readable(name)
        return cls(run, tuple(files))


def _check_readable(name: str) -> None:
    from etils import epath

    if name != STANDARD_INPUT and not epath.Path(name).is_file():
        what = "it is a folder" if epath.Path(name).is_dir() else "there is no such file"
        raise UserError(f"cannot read {name}: {what}")


@dataclass(frozen=True)
class PairInput:
    """Pairs of lines as they are read.

    Attributes:
      pairs: all of them.
      ready: whether another is there without waiting.
      advance: told how many pairs more are done, for a bar.
    """

    pairs: "Iterator[LinePair]"
    ready: Callable[[], bool]
    advance: Callable[[int], None]


@contextlib.contextmanager
def open_line_pairs(inputs: Inputs, wrong: "LineNumbers") -> Iterator[PairInput]:
    """Open the files, decompressed according to their names; two are compared before anything else is done.

    Args:
      inputs: the files.
      wrong: gets the numbers of lines that are not UTF-8.

    Raises:
      UserError: they have different numbers of lines, or a line of one file has not two columns.
    """
    from nmt.decode.line_pairs import pair_lines, split_columns, unequal_lines

    names = tuple("standard input" if name == STANDARD_INPUT else name for name in inputs.files)
    counts = [None if name == STANDARD_INPUT else _count_lines(name) for name in inputs.files]
    if None not in counts and len(set(counts)) > 1:
        raise UserError(unequal_lines((names[0], names[1]), (counts[0] or 0, counts[1] or 0)))
    with contextlib.ExitStack() as stack:
        texts = [stack.enter_context(open_text(FileArguments(file=name))) for name in inputs.files]
        advance = stack.enter_context(_progress_bar(names[0], next(filter(None, counts), None)))
        if len(texts) == 1:
            pairs = split_columns(texts[0].lines, names[0], wrong)
        else:
            pairs = pair_lines(texts[0].lines, texts[1].lines, (names[0], names[1]), wrong)
        yield PairInput(pairs, lambda: all(text.ready() for text in texts), advance)


@contextlib.contextmanager
def open_scores(name: str | None) -> Iterator[Callable[[bytes], None]]:
    """Give a function that writes to standard output at once, or to a file that appears when all is done.

    Raises:
      UserError: the file cannot be written.
    """
    if name is None:

        def write(content: bytes) -> None:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

        yield write
        return
    from etils import epath

    from nmt.files import atomic_write

    if not (parent := epath.Path(name).parent).is_dir():
        raise UserError(f"cannot write {name}: there is no folder {parent}")
    try:
        with atomic_write(name) as temporary, temporary.open("wb") as file:
            yield lambda content: (file.write(content), None)[1]
    except PermissionError as error:
        raise UserError(f"cannot write {name}: {error.strerror}") from None


def _count_lines(name: str) -> int:
    with open_text(FileArguments(file=name)) as text:
        return sum(1 for _ in text.lines)


@contextlib.contextmanager
def _progress_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, if that is a terminal and the output is not."""
    if total is None or not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, advance=done)
