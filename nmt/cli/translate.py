"""nmt-translate: text in, text out, line by line."""

import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from nmt.cli.option_groups import GroupedCommand, grouped_command
from nmt.cli.shell import parsed, prepare_process, run_command, tell_note
from nmt.cli.translate_arguments.files import FileArguments
from nmt.cli.translate_arguments.model import ModelArguments
from nmt.cli.translate_arguments.ranking import RankingArguments
from nmt.cli.translate_arguments.scores import ScoreArguments
from nmt.cli.translate_arguments.search import SearchArguments
from nmt.cli.translate_arguments.steering import SteeringArguments
from nmt.cli.translate_files import TextSurvey, check_files, open_output, open_text, skip_done, survey
from nmt.cli.translate_progress import SentenceRate, show_progress
from nmt.languages import get

if TYPE_CHECKING:
    from nmt.decode.documents.units import DocumentFormat
    from nmt.decode.ranking import Ranking
    from nmt.decode.stream import StreamReport
    from nmt.decode.translator import Translation, Translator
    from nmt.languages import Direction

_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True, kw_only=True)
class TranslateArguments:
    """The parsed arguments of nmt-translate, by group; another option is a field of a group."""

    model: ModelArguments
    files: FileArguments = field(default_factory=FileArguments)
    search: SearchArguments = field(default_factory=SearchArguments)
    steering: SteeringArguments = field(default_factory=SteeringArguments)
    ranking: RankingArguments = field(default_factory=RankingArguments)
    scores: ScoreArguments = field(default_factory=ScoreArguments)


app.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"]})(
    grouped_command(
        TranslateArguments,
        "Translate text, one line at a time: N lines in, N lines out, and a blank line stays blank.",
    )
)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main, leave=_leave)


def _leave(status: int) -> NoReturn:
    """End the process; an interrupted one at once, since threads that still compile would crash Python's own end."""
    if status in _INTERRUPTED:
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


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
    document = request.files.document_format(request.scores)
    surveyed = survey(request.files, document)
    from nmt.decode.translator import Translator

    translator = Translator(request.model.run, step=request.model.step, precision=request.model.precision)
    direction = translator.direction(request.model.source, request.model.target)
    if not translator.is_trained(direction):
        tell_note(f"the model was not trained on {direction}, only on its languages: expect less")
    with request.ranking.open() as ranking:
        session = _Session(request, translator, ranking)
        if _is_interactive(request):
            _converse(session, document, direction)
        else:
            with _terminable():
                _translate_document(session, document, surveyed)
    session.tell()


def _check(request: TranslateArguments) -> None:
    """Raise UserError for the mistakes that show before anything is loaded."""
    from etils import epath

    from nmt.config import read_run_recipe
    from nmt.data.vocab import DOMAIN, Vocabulary
    from nmt.data.vocabularies import Vocabularies
    from nmt.decode.direction import resolve_direction
    from nmt.decode.documents.kinds import JSONL, LINES
    from nmt.decode.options import SearchOptions
    from nmt.errors import UserError
    from nmt.languages import get
    from nmt.models.precision import check_precision

    check_precision(request.model.precision)
    recipe = read_run_recipe(request.model.run)
    options = SearchOptions.from_config(recipe.decode, **request.ranking.search_options(request.search.given()))
    kind = request.files.kind()
    if options.hypotheses > 1 and kind not in (LINES, JSONL):
        raise UserError(f"hypotheses above 1 are for lines and JSON lines (--format), not for {kind}")
    if options.hypotheses > 1 and kind == LINES and request.scores.align and not request.scores.token_scores:
        raise UserError(
            "--align with several hypotheses is for JSON lines (--format jsonl), with the links of the best"
        )
    get(request.model.source), get(request.model.target)
    vocabulary, targets = Vocabularies.files(epath.Path(request.model.run) / "vocab", recipe.vocab)
    if vocabulary.exists():
        loaded = Vocabulary.load(vocabulary)
        resolve_direction(loaded, request.model.source, request.model.target)
        if request.model.domain is not None:
            loaded.symbol(DOMAIN.format(request.model.domain))
    check_files(request.files)
    request.steering.check(lambda: Vocabulary.load(targets))


def _is_interactive(request: TranslateArguments) -> bool:
    return request.files.from_stdin and request.files.output is None and sys.stdin.isatty()


class _Session:
    """One run of the command: its arguments, its translator, and the findings that a person is told at the end."""

    def __init__(self, request: TranslateArguments, translator: "Translator", ranking: "Ranking | None") -> None:
        from nmt.corpora.clean.signs import SignCounter
        from nmt.decode.stream import StreamReport

        self.request, self.translator, self._ranking = request, translator, ranking
        self._steering = request.steering.request()
        self.report = StreamReport()
        self._signs = SignCounter("the source")

    def translate(self, texts: Sequence[str]) -> "list[Translation]":
        """Translate as the arguments say."""
        model = self.request.model
        self._signs.add(texts, get(model.source).code)
        return self.translator.translate_scored(
            texts,
            model.source,
            model.target,
            domain=model.domain,
            options=self.translator.options(**self.request.ranking.search_options(self.request.search.given())),
            steering=self._steering,
            ranking=self._ranking,
            **self.request.scores.details(),
        )

    def identity(self, surveyed: TextSurvey | None) -> dict[str, str]:
        """Return digests of all that the output depends on."""
        options: dict[str, Any] = {
            **{field.name: asdict(getattr(self.request, field.name)) for field in fields(self.request)},
            "files": self.request.files.identity(),
            "glossary": self.request.steering.glossary_digest(),
        }
        options["model"] = {**options["model"], "run": "", "step": None}
        return {
            "text": surveyed.digest if surveyed else "a stream",
            "model": self.translator.identity,
            "set of options": hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest(),
        }

    def tell(self) -> None:
        """Tell the findings."""
        report, longest = self.report, self.translator.recipe.data.source_length
        for numbers, finding in (
            (report.undecodable, "not UTF-8; U+FFFD stands for wrong bytes"),
            (report.split, f"longer than the {longest} tokens the model was trained on, and translated in parts"),
            (
                report.normalised,
                "brought to the form of the training text (invisible characters, entities, Unicode normal form)",
            ),
            (report.loops, "translated by something that repeats itself: do not trust their translations"),
            (report.digits, "translated with other digits than their own"),
            (report.unknown, "in letters that the model does not know: do not trust their translations"),
            (report.repaired, "put right: addresses, placeholders or other text that is kept had been changed"),
            (report.damaged, "translated without some text that is kept, or with more of it than they have"),
        ):
            if numbers.count:
                verb = "1 line was" if numbers.count == 1 else f"{numbers.count:,} lines were"
                tell_note(f"{verb} {finding} ({numbers})")
        for finding in self._signs.warnings():
            tell_note(f"{finding}; a model that did not learn from such text translates it badly")


def _translate_document(session: _Session, document: "DocumentFormat", surveyed: TextSurvey | None) -> None:
    from nmt.decode.documents.units import decoded_lines
    from nmt.decode.stream import translate_units

    files = session.request.files
    with open_text(files) as text, open_output(files, session.identity(surveyed)) as output:
        report = session.report = output.report
        units = document.units(decoded_lines(output.watch(text.lines), report.undecodable, files.on_error))
        skip_done(units, report.read)
        output.check_read()
        if report.lines:
            tell_note(f"continuing {files.output} after {report.lines:,} lines")
        with _progress(session, surveyed) as progress:

            def write(content: bytes, report: "StreamReport") -> None:
                output.write(content, report)
                progress(report.texts)

            translate_units(units, write, session.translate, report, ready=text.ready)


@contextlib.contextmanager
def _progress(session: _Session, surveyed: TextSurvey | None) -> Iterator[Callable[[int], None]]:
    files = session.request.files
    on_terminal = files.output is None and sys.stdout.isatty()  # where the translations themselves appear
    if not files.progress or on_terminal or (files.from_stdin and files.output is None):
        yield lambda done: None
        return
    with show_progress(SentenceRate(surveyed.texts if surveyed else None, session.report.texts)) as update:
        yield update


def _converse(session: _Session, document: "DocumentFormat", direction: "Direction") -> None:
    """Translate typed text, line by line."""
    from nmt.decode.chunks import ChunkSizes
    from nmt.decode.documents.units import decoded_lines
    from nmt.decode.stream import translate_units

    def typed() -> Iterator[bytes]:
        while True:
            print(f"{direction}> ", end="", file=sys.stderr, flush=True)
            if not (line := sys.stdin.buffer.readline()):
                print(file=sys.stderr)
                return
            yield line

    with open_output(session.request.files, {}) as output:
        units = document.units(decoded_lines(typed(), session.report.undecodable, session.request.files.on_error))
        translate_units(units, output.write, session.translate, session.report, sizes=ChunkSizes(largest=1))


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as an exception, so that a person is told what is kept."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as ended:
        if ended.code in _INTERRUPTED:
            _leave(int(ended.code))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
