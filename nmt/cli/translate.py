"""nmt-translate: text in, text out, line by line."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import typer

from nmt.cli.option_groups import GroupedCommand, given_values, grouped_command
from nmt.cli.shell import command_name, parsed, prepare_process, run_command
from nmt.cli.translate_arguments.files import FileArguments
from nmt.cli.translate_arguments.model import ModelArguments
from nmt.cli.translate_arguments.scores import ScoreArguments
from nmt.cli.translate_arguments.search import SearchArguments
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.decode.stream import StreamReport
    from nmt.decode.translator import Translation, Translator
    from nmt.languages import Direction

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True, kw_only=True)
class TranslateArguments:
    """The parsed arguments of nmt-translate, by group; another option is a field of a group."""

    model: ModelArguments
    files: FileArguments = field(default_factory=FileArguments)
    search: SearchArguments = field(default_factory=SearchArguments)
    scores: ScoreArguments = field(default_factory=ScoreArguments)


app.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})(
    grouped_command(
        TranslateArguments,
        "Translate text, one line at a time: N lines in, N lines out, and a blank line stays blank.",
    )
)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    if request := parsed(app, TranslateArguments):
        run_translation(request)


def run_translation(request: TranslateArguments) -> None:
    """Translate as requested, from and to the streams of the process or files.

    Raises:
      UserError: a mistake in the request; nothing has been written then.
    """
    _check(request)
    prepare_process()
    from nmt.decode.translator import Translator

    translator = Translator(request.model.run, step=request.model.step)
    direction = translator.direction(request.model.source, request.model.target)
    if not translator.is_trained(direction):
        _note(f"the model was not trained on {direction}, only on its languages: expect less")
    if _is_interactive(request):
        _converse(request, translator, direction)
        return
    with _reader(request) as reader, _writer(request) as writer, _progress_bar(request) as progress:
        report = _translate(request, translator, reader, writer, progress)
    _tell(report, translator)


def _check(request: TranslateArguments) -> None:
    """Raise UserError for the mistakes that show before anything is loaded."""
    from etils import epath

    from nmt.config import read_run_recipe
    from nmt.data.vocab import DOMAIN, Vocabulary
    from nmt.data.vocabularies import Vocabularies
    from nmt.decode.direction import resolve_direction
    from nmt.languages import get

    recipe = read_run_recipe(request.model.run)
    get(request.model.source), get(request.model.target)
    vocabulary, _ = Vocabularies.files(epath.Path(request.model.run) / "vocab", recipe.vocab)
    if vocabulary.exists():
        loaded = Vocabulary.load(vocabulary)
        resolve_direction(loaded, request.model.source, request.model.target)
        if request.model.domain is not None:
            loaded.symbol(DOMAIN.format(request.model.domain))
    if request.files.file is not None and request.files.file != "-":
        if not (file := epath.Path(request.files.file)).exists():
            raise UserError(f"cannot read {request.files.file}: there is no such file")
        if file.is_dir():
            raise UserError(f"cannot read {request.files.file}: it is a folder")
    if request.files.output is not None:
        if not (parent := epath.Path(request.files.output).parent).is_dir():
            raise UserError(f"cannot write {request.files.output}: there is no folder {parent}")
        if epath.Path(request.files.output).is_dir():
            raise UserError(f"cannot write {request.files.output}: it is a folder")


def _is_interactive(request: TranslateArguments) -> bool:
    return request.files.file in (None, "-") and request.files.output is None and sys.stdin.isatty()


@contextlib.contextmanager
def _reader(request: TranslateArguments) -> Iterator[BinaryIO]:
    if request.files.file is None or request.files.file == "-":
        yield sys.stdin.buffer
        return
    from etils import epath

    try:
        file = epath.Path(request.files.file).open("rb")
    except OSError as error:
        raise UserError(f"cannot read {request.files.file}: {error.strerror or error}") from None
    with file:
        yield file


@contextlib.contextmanager
def _writer(request: TranslateArguments) -> Iterator[BinaryIO]:
    if request.files.output is None:
        yield sys.stdout.buffer
        return
    from nmt.files import atomic_write

    try:
        with atomic_write(request.files.output) as temporary, temporary.open("wb") as file:
            yield file
    except PermissionError as error:
        raise UserError(f"cannot write {request.files.output}: {error.strerror}") from None


@contextlib.contextmanager
def _progress_bar(request: TranslateArguments) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on standard error for a file of known size, unless the translations appear on the same terminal."""
    free = request.files.output is not None or not sys.stdout.isatty()
    if request.files.file in (None, "-") or not sys.stderr.isatty() or not free:
        yield None
        return
    from etils import epath
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(request.files.file), total=epath.Path(str(request.files.file)).stat().length)
        yield lambda done: bar.update(task, completed=done)


def _translate(
    request: TranslateArguments,
    translator: "Translator",
    lines: Iterator[bytes] | BinaryIO,
    writer: BinaryIO,
    progress: Callable[[int], None] | None = None,
    chunk_lines: int | None = None,
) -> "StreamReport":
    from nmt.corpora.clean.signs import SignCounter
    from nmt.decode.stream import CHUNK_LINES, translate_stream
    from nmt.languages import get

    signs = SignCounter("the source")

    def translate(texts: Sequence[str], told: Callable[[int], None] | None) -> "list[Translation]":
        signs.add(texts, get(request.model.source).code)
        return translator.translate_scored(
            texts,
            request.model.source,
            request.model.target,
            domain=request.model.domain,
            progress=told,
            **given_values(request.search),
        )

    def write(output: bytes) -> None:
        writer.write(output)
        writer.flush()

    report = translate_stream(
        lines,
        write,
        translate,
        request.scores.render,
        chunk_lines=chunk_lines or CHUNK_LINES,
        progress=progress,
    )
    for finding in signs.warnings():
        _note(f"{finding}; a model that did not learn from such text translates it badly")
    return report


def _converse(request: TranslateArguments, translator: "Translator", direction: "Direction") -> None:
    """Translate typed text, line by line."""

    def typed() -> Iterator[bytes]:
        while True:
            print(f"{direction}> ", end="", file=sys.stderr, flush=True)
            if not (line := sys.stdin.buffer.readline()):
                print(file=sys.stderr)
                return
            yield line

    _tell(_translate(request, translator, typed(), sys.stdout.buffer, chunk_lines=1), translator)


def _tell(report: "StreamReport", translator: "Translator") -> None:
    if report.undecodable:
        lines = "1 line was" if report.undecodable == 1 else f"{report.undecodable} lines were"
        _note(f"{lines} not UTF-8, the first of them line {report.first_undecodable}; U+FFFD stands for wrong bytes")
    if report.split:
        lines = "1 line was" if report.split == 1 else f"{report.split} lines were"
        longest = translator.recipe.data.source_length
        _note(f"{lines} longer than the {longest} tokens the model was trained on, and translated in parts")
    if report.normalised:
        lines = "1 line was" if report.normalised == 1 else f"{report.normalised} lines were"
        _note(
            f"{lines} brought to the form of the training text (invisible characters, entities, Unicode normal form), "
            f"the first of them line {report.first_normalised}"
        )


def _note(text: str) -> None:
    print(f"{command_name()}: note: {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
