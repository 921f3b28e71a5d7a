"""nmt-score: the probability of given translations, the alignment of their words, and a report of suspicious lines."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from nmt.cli.score_files import Inputs, PairInput, open_line_pairs, open_scores
from nmt.cli.shell import parsed, prepare_process, run_command, tell_note
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.decode.documents.units import LineNumbers
    from nmt.decode.line_pairs import LinePair
    from nmt.decode.scoring import PairScore
    from nmt.decode.suspicion import SuspicionThresholds
    from nmt.decode.translator import Translator
    from nmt.languages import Direction

CHUNK_LINES = 4096

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class ScoreRequest(NamedTuple):
    """The parsed arguments of nmt-score."""

    arguments: list[str]
    source: str
    target: str
    tokens: bool = False
    align: bool = False
    alignment_layer: int | None = None
    as_json: bool = False
    report: bool = False
    threshold: list[str] | None = None
    output: str | None = None
    length_penalty: float | None = None
    domain: str | None = None
    step: int | None = None


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def score(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN SOURCE TARGET",
            help="Run directory, and two files of as many lines; or the run and one file of two columns with a tab "
            "between. - is standard input, also where there is no file. With --report the run may be left out.",
        ),
    ],
    source: Annotated[str, typer.Option("--from", metavar="LANGUAGE", help="Language of SOURCE: de, deu, de-DE, ...")],
    target: Annotated[str, typer.Option("--to", metavar="LANGUAGE", help="Language of TARGET.")],
    tokens: Annotated[bool, typer.Option("--tokens", help="JSON lines, with the score of every token.")] = False,
    align: Annotated[
        bool, typer.Option("--align", help="Instead of scores, alignments of words: 0-0 1-2 (Pharaoh's form).")
    ] = False,
    alignment_layer: Annotated[
        int | None, typer.Option(metavar="N", help="Decoder layer, from 0, whose attention aligns. Default: the last.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of text.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Only suspicious lines: number, reason, value, and the pair.")
    ] = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NUMBER", help="A threshold of --report, such as length_ratio=4; may be repeated."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here, once all is done. Default: standard output."),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Exponent of the length normalisation. Default: the recipe's."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Kind of text, where the run has data.domain_tags. Default: none."),
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Step of the checkpoint. Default: the newest.")
    ] = None,
) -> ScoreRequest:
    """Score given translations: for each pair of lines the log probability, and the score as nmt-translate has it.

    The perplexity of the whole is told on standard error. With --report, lines that look wrong are listed instead.
    """
    return ScoreRequest(
        arguments, source, target, tokens, align, alignment_layer, as_json, report, threshold, output,
        length_penalty, domain, step,
    )  # fmt: skip


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    if request := parsed(app, ScoreRequest):
        run_scoring(request)


def run_scoring(request: ScoreRequest) -> None:
    """Score as requested, from and to the streams of the process or files.

    Raises:
      UserError: a mistake in the request, or files that do not belong together.
    """
    from nmt.decode.documents.units import LineNumbers
    from nmt.decode.suspicion import SuspicionThresholds
    from nmt.languages import Direction, get

    if request.threshold and not request.report:
        raise UserError("--threshold is for --report")
    if request.report and (request.tokens or request.align):
        raise UserError("--report lists suspicious lines only: --tokens and --align are for scores")
    if request.alignment_layer is not None and not request.align:
        raise UserError("--alignment-layer is for --align")
    thresholds = SuspicionThresholds.parse(request.threshold or [])
    direction = Direction(get(request.source).code, get(request.target).code)
    inputs = Inputs.parse(request.arguments, run_optional=request.report)
    translator = _load(inputs.run, request) if inputs.run is not None else None
    wrong = LineNumbers()
    scoring = _Scoring(request, direction, thresholds, translator)
    with open_line_pairs(inputs, wrong) as opened, open_scores(request.output) as write:
        for chunk in _chunks(opened):
            write("".join(f"{line}\n" for line in scoring.lines(chunk)).encode())
            opened.advance(len(chunk))
    scoring.tell(wrong)


def _load(run: str, request: ScoreRequest) -> "Translator":
    from etils import epath

    from nmt.config import read_run_recipe
    from nmt.data.vocab import DOMAIN, Vocabulary
    from nmt.data.vocabularies import Vocabularies
    from nmt.decode.direction import resolve_direction

    recipe = read_run_recipe(run)
    file, _ = Vocabularies.files(epath.Path(run) / "vocab", recipe.vocab)
    if file.exists():  # mistakes are told before anything is loaded
        vocabulary = Vocabulary.load(file)
        resolve_direction(vocabulary, request.source, request.target)
        if request.domain is not None:
            vocabulary.symbol(DOMAIN.format(request.domain))
    prepare_process()
    from nmt.decode.translator import Translator

    return Translator(run, step=request.step)


def _chunks(opened: PairInput) -> "Iterator[list[LinePair]]":
    """Yield pairs, many at a time, but those that are there where others have to be waited for."""
    chunk: list[LinePair] = []
    for pair in opened.pairs:
        chunk.append(pair)
        if len(chunk) == CHUNK_LINES or not opened.ready():
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass
class _Scoring:
    """Makes lines of output of pairs, and counts what a person should know of."""

    request: ScoreRequest
    direction: "Direction"
    thresholds: "SuspicionThresholds"
    translator: "Translator | None"
    lines_read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    suspicious: int = 0

    def __post_init__(self) -> None:
        from nmt.decode.documents.units import LineNumbers
        from nmt.decode.scoring import ScoreTotals

        self.totals, self.long, self.half_blank = ScoreTotals(), LineNumbers(), LineNumbers()

    def lines(self, pairs: "list[LinePair]") -> Iterator[str]:
        """Yield the lines of output for pairs."""
        scores = self._scores(pairs)
        self.lines_read += len(pairs)
        for pair, score in zip(pairs, scores, strict=True):
            if score and score.is_too_long:
                self.long.add(pair.number)
            if pair.is_half_blank:
                self.half_blank.add(pair.number)
            if self.request.report:
                yield from self._findings(pair, score)
            else:
                assert score
                yield self._line(pair, score)

    def _scores(self, pairs: "list[LinePair]") -> "list[PairScore] | list[None]":
        if self.translator is None:
            return [None] * len(pairs)
        request = self.request
        scores = self.translator.score(
            [pair.source for pair in pairs],
            [pair.target for pair in pairs],
            request.source,
            request.target,
            length_penalty=request.length_penalty,
            domain=request.domain,
            align=request.align,
            alignment_layer=request.alignment_layer,
        )
        self.totals.add(scores)
        return scores

    def _line(self, pair: "LinePair", score: "PairScore") -> str:
        request = self.request
        if not (request.tokens or request.as_json):
            if request.align:
                return score.alignment.pharaoh() if score.alignment else ""
            return f"{score.log_probability:.4f}\t{score.score:.4f}"
        values: dict[str, Any] = {
            "source": pair.source,
            "target": pair.target,
            "log_probability": None if score.is_too_long else score.log_probability,
            "score": None if score.is_too_long else score.score,
        }
        if request.tokens:
            values["tokens"] = [one._asdict() for one in score.tokens]
        if request.align:
            values["alignment"] = score.alignment.links if score.alignment else []
        return json.dumps(values, ensure_ascii=False)

    def _findings(self, pair: "LinePair", score: "PairScore | None") -> Iterator[str]:
        from nmt.decode.suspicion import find_suspicions

        mean = score.log_probability / len(score.tokens) if score and score.tokens else None
        found = list(find_suspicions(pair.source, pair.target, self.direction, self.thresholds, mean))
        self.suspicious += bool(found)
        self.reasons.update(str(finding.reason) for finding in found)
        for finding in found:
            values = {"line": pair.number, **finding._asdict(), "source": pair.source, "target": pair.target}
            if self.request.as_json:
                yield json.dumps(values, ensure_ascii=False)
            else:
                yield "\t".join(" ".join(str(value).split()) for value in values.values())

    def tell(self, wrong: "LineNumbers") -> None:
        """Tell a person about the whole text."""
        longest = self.translator.recipe.data.source_length if self.translator else 0
        too_long = (
            f"longer than the {longest} tokens that the model was trained on, or the translation than it could give: "
            "no score"
        )
        findings = [(wrong, "not UTF-8; U+FFFD stands for wrong bytes"), (self.long, too_long)]
        if not self.request.report:
            findings.append((self.half_blank, "blank on one side only"))
        for numbers, finding in findings:
            if numbers.count:
                lines = "1 line is" if numbers.count == 1 else f"{numbers.count:,} lines are"
                tell_note(f"{lines} {finding} ({numbers})")
        if self.request.report:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common())
            tell_note(
                f"{self.suspicious:,} of {self.lines_read:,} lines are suspicious{f': {counts}' if counts else ''}"
            )
        if self.translator and not math.isnan(self.totals.perplexity):
            tell_note(
                f"{self.totals.pairs:,} pairs, {self.totals.tokens:,} tokens: log probability "
                f"{self.totals.log_probability:.2f}, perplexity {self.totals.perplexity:.2f}"
            )


if __name__ == "__main__":
    main()
