"""nmt-data stats, preview and export: commands about cleaned corpora, which `nmt/cli/data.py` registers."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from nmt.cli.shell import command_name
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.config import CleanConfig
    from nmt.corpora import Corpus
    from nmt.languages import Direction

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Corpus or mixture: a name of data/*.yaml, or a path.")]
_Directions = Annotated[
    list[str] | None,
    typer.Option(
        "--directions",
        metavar="PAIRS",
        help="Directions, such as de-en,en-de or *-en; may be repeated. Default: every language into the key language.",
    ),
]
_Clean = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A key of data.clean, such as min_words=1; may be repeated. docs/configuration.md#dataclean and "
        "nmt-train --help have the keys.",
    ),
]
# Copies of the values in nmt.corpora.clean and nmt.corpora.cleaned.sieve, so that --help does not import those.
REASONS = (
    "empty", "control", "placeholder", "too_short", "too_long", "few_letters", "repeated", "script", "chinese_script",
    "language", "copy", "length_ratio", "numbers", "addresses", "duplicate", "near_duplicate", "held_out",
    "contaminated",
)  # fmt: skip
SAMPLES = 20
_UNBOUNDED = 10_000  # columns: a table for a file or another program has no width to keep to

_Pair = Annotated[str, typer.Option(metavar="PAIR", help="Direction, such as de-en.")]


class StatsRequest(NamedTuple):
    """Arguments of `nmt-data stats`."""

    name: str
    directions: list[str] | None
    clean: list[str]
    as_json: bool


class PreviewRequest(NamedTuple):
    """Arguments of `nmt-data preview`."""

    name: str
    pair: str | None
    most: int
    rejected: str | None
    clean: list[str]


class ExportRequest(NamedTuple):
    """Arguments of `nmt-data export`."""

    name: str
    pair: str
    split: Literal["train", "dev", "test"]
    out: str
    form: Literal["moses", "tsv", "jsonl"]
    compress: bool
    clean: list[str]


def stats(
    name: _Name,
    directions: _Directions = None,
    clean: _Clean = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> StatsRequest:
    """Clean a corpus, and count pairs, words, characters and rejected pairs of every direction.

    The cleaned corpus is kept in the cache (NMT_CACHE), so the same request takes no time again.
    """
    return StatsRequest(name, directions, clean or [], as_json)


def preview(
    name: _Name,
    pair: Annotated[
        str | None, typer.Option(metavar="PAIR", help="Direction, such as de-en. Default: the five largest.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Pairs of each direction.")] = 10,
    rejected: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help=f"Show pairs that were rejected so: {', '.join(REASONS)}. Up to {SAMPLES} of each direction are kept.",
        ),
    ] = None,
    clean: _Clean = None,
) -> PreviewRequest:
    """Show pairs that cleaning keeps, or pairs that it rejects for a reason."""
    return PreviewRequest(name, pair, count, rejected, clean or [])


def export(
    name: _Name,
    pair: _Pair,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder that the files are written to.")],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Which pairs.")] = "train",
    form: Annotated[
        Literal["moses", "tsv", "jsonl"], typer.Option("--format", help="Two files of lines, or one file of pairs.")
    ] = "moses",
    compress: Annotated[bool, typer.Option("--gz", help="Compress with gzip.")] = False,
    clean: _Clean = None,
) -> ExportRequest:
    """Write the cleaned pairs of a direction for other tools."""
    return ExportRequest(name, pair, split, out, form, compress, clean or [])


def perform(request: StatsRequest | PreviewRequest | ExportRequest) -> None:
    """Run one of the commands of this module."""
    match request:
        case StatsRequest():
            _stats(request)
        case PreviewRequest():
            _preview(request)
        case ExportRequest():
            _export(request)


def _corpus(name: str, directions: list[str] | None, clean: list[str]) -> "Corpus":
    from nmt.config.directions import expand_directions
    from nmt.corpora.cleaned.load import clean_corpora
    from nmt.corpora.opening import default_directions
    from nmt.languages import parse_stream
    from nmt.recipes.terminal import TerminalProgress

    config, progress = _clean_config(clean), TerminalProgress()
    if directions is None:
        return clean_corpora([name], default_directions(name, progress), config, progress)
    wanted = [one.strip() for text in directions for one in text.split(",") if one.strip()]
    return clean_corpora(
        [name], list(dict.fromkeys(map(parse_stream, expand_directions(wanted, [name])))), config, progress
    )


def _clean_config(changes: Sequence[str]) -> "CleanConfig":
    """Return the default cleaning with keys changed, each written as KEY=VALUE (YAML), such as min_words=1.

    Raises:
      UserError: not of this form, an unknown key, a wrong value.
    """
    from pydantic import ValidationError

    from nmt.config import CleanConfig
    from nmt.config.arguments import read_arguments

    values = {path[-1]: given.value for path, given in read_arguments([f"data.clean.{one}" for one in changes]).items()}
    try:
        return CleanConfig(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        raise UserError(f"--clean {key}={wrong['input']}: {wrong['msg']}") from None


def _stats(request: StatsRequest) -> None:
    from nmt.corpora.cleaned.preview import check_kept
    from nmt.corpora.cleaned.statistics import corpus_statistics

    corpus = _corpus(request.name, request.directions, request.clean)
    if request.as_json:
        print(json.dumps(corpus_statistics(corpus), indent=2, ensure_ascii=False))
    else:
        _print_statistics(corpus)
    sys.stdout.flush()
    check_kept(corpus, request.name)


def _print_statistics(corpus: "Corpus") -> None:
    from rich.table import Table

    from nmt.corpora.cleaned.statistics import STATISTICS_TITLES, statistics_rows
    from nmt.recipes.terminal import table_console

    table = Table()
    for name in STATISTICS_TITLES:
        table.add_column(name, justify="left" if name in ("direction", "rejected") else "right", overflow="fold")
    rows, total = statistics_rows(corpus)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total)
    table_console(_UNBOUNDED).print(table)


def _corpus_with_direction(name: str, pair: str, clean: list[str]) -> "tuple[Corpus, Direction]":
    """Return a corpus with a direction; that of `stats`, which may be in the cache already, if it has it."""
    from nmt.corpora.opening import default_directions
    from nmt.languages import parse_stream
    from nmt.recipes.terminal import TerminalProgress

    direction = parse_stream(pair)
    default = direction in default_directions(name, TerminalProgress())
    return _corpus(name, None if default else [str(direction)], clean), direction


def _preview(request: PreviewRequest) -> None:
    from rich.console import Console

    from nmt.corpora.cleaned.preview import explain_nothing, largest_directions, sample_pairs

    if request.pair is None:
        corpus = _corpus(request.name, None, request.clean)
        directions = largest_directions(corpus, request.rejected)
        if not directions:
            raise UserError(explain_nothing(corpus, request.name, request.rejected))
    else:
        corpus, direction = _corpus_with_direction(request.name, request.pair, request.clean)
        directions = [direction]
    if request.rejected and request.most > SAMPLES:
        print(
            f"{command_name()}: note: of each direction and reason {SAMPLES} rejected pairs are kept to be shown",
            file=sys.stderr,
        )
    out = Console(soft_wrap=True, highlight=False, markup=False)
    for direction in directions:
        pairs = sample_pairs(corpus, direction, request.most, request.rejected)
        out.print(f"{direction}{f', rejected as {request.rejected}' if request.rejected else ''}")
        for source, target in pairs:
            sides = (source,) if direction.denoises else (source, target)
            out.print("".join(f"  {side!r}\n" if request.rejected else f"  {side}\n" for side in sides))


def _export(request: ExportRequest) -> None:
    from nmt.corpora.cleaned.export import export_split
    from nmt.corpora.cleaned.preview import check_split
    from nmt.corpora.wording import count_phrase
    from nmt.recipes.terminal import TerminalProgress

    corpus, direction = _corpus_with_direction(request.name, request.pair, request.clean)
    check_split(corpus, direction, request.split)
    pairs = len(corpus.pairs[direction][request.split])
    try:
        paths = export_split(
            corpus, direction, request.split, request.out, request.form, request.compress, TerminalProgress()
        )
    except OSError as error:
        raise UserError(f"cannot write to {request.out}: {error.strerror or error}") from None
    count = count_phrase(pairs, "text" if direction.denoises else "pair")
    print(f"{count} in {' and '.join(map(str, paths))}")
