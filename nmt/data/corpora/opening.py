"""Opening corpora by name: declared, fetched, and ready to be read."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from nmt.data.corpora.columns import JsonlSource, ParquetSource, TsvSource
from nmt.data.corpora.compressed import stem
from nmt.data.corpora.datasets import TfdsSource
from nmt.data.corpora.editions import SqliteSource
from nmt.data.corpora.fetch import Outcome, fetch, fetch_all
from nmt.data.corpora.lines import LinesSource
from nmt.data.corpora.messages import GettextSource
from nmt.data.corpora.monolingual import TextSource
from nmt.data.corpora.pages import DescriptionsSource, HtmlSource
from nmt.data.corpora.patterns import expand_variables
from nmt.data.corpora.read import Provenance, Source
from nmt.data.corpora.spec import CorpusSpec, load_declaration, load_spec, load_specs
from nmt.data.corpora.spec_obtain import LocalFiles, TfdsFolder
from nmt.data.corpora.spec_read import (
    AnyPairs,
    Descriptions,
    Gettext,
    HtmlTables,
    Jsonl,
    JsonTables,
    ParallelText,
    Parquet,
    PlainText,
    Read,
    Sqlite,
    TfdsDataset,
    Tsv,
)
from nmt.data.corpora.tables import JsonSource
from nmt.data.corpora.tree import Archives, Files, Tree
from nmt.errors import UserError

_TFDS = "tfds:"


@dataclass(frozen=True)
class Corpora:
    """Open corpora, and those of mixtures that could not be had."""

    sources: tuple[Source, ...]
    failures: dict[str, str] = field(default_factory=dict)  # why, by the name of the corpus


def open_corpus(name: str, console: Console | None = None) -> Source:
    """Return one corpus, fetched if it must be, for use in a `with` statement.

    Args:
      name: of data/NAME.yaml, or a path; a mixture is opened by `open_corpora`.
      console: where the progress of downloads is shown; None: nowhere.

    Raises:
      UserError: the declaration is wrong, it is a mixture, or the corpus cannot be fetched or opened.
    """
    return open_spec(load_spec(name), console)


def open_spec(spec: CorpusSpec, console: Console | None = None) -> Source:
    """Return the corpus of a declaration; see `open_corpus`."""
    return _open(spec, fetch(spec, console))


@contextlib.contextmanager
def open_corpora(names: Sequence[str], console: Console | None = None) -> Iterator[Corpora]:
    """Open corpora and all parts of mixtures, and close them at the end.

    A part of a mixture that cannot be had is warned of and left out; a corpus that is asked for by its own name must
    be there, and so must one part of every mixture.

    Raises:
      UserError: as `open_corpus`, or nothing of a mixture can be had.
    """
    specs = load_specs(names)
    alone = {spec.name for name in names for spec in [load_declaration(name)] if isinstance(spec, CorpusSpec)}
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sources = []
        for spec, outcome in zip(specs, fetch_all(specs, console).values(), strict=True):
            try:
                sources.append(stack.enter_context(_open(spec, outcome)))
            except UserError as error:
                if spec.name in alone:
                    raise
                failures[spec.name] = str(error)
                warn(console, f"left out: {error}")
        if not sources:
            raise UserError("; ".join(failures.values()))
        yield Corpora(tuple(sources), failures)


def warn(console: Console | None, message: str) -> None:
    """Print a warning in one line."""
    if console:
        console.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 direction`, `2 directions`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def identity(spec: CorpusSpec) -> dict[str, Any]:
    """Return what determines a corpus's text: the declaration, and which files there are where a person has them.

    Raises:
      UserError: the declaration's path has a variable that is not set in the environment.
    """
    found: dict[str, Any] = {}
    if isinstance(spec.obtain, LocalFiles | TfdsFolder):
        found = {"found": _listing(spec)[1]}
    return {**spec.identity(), **found}


def _open(spec: CorpusSpec, outcome: Outcome) -> Source:
    if isinstance(outcome, UserError):
        raise outcome
    if isinstance(spec.obtain, LocalFiles | TfdsFolder):
        source = _open_local(spec)
        shown, listing = _listing(spec)
        digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        source.provenance = (Provenance(spec.name, "", spec.licence, digest, shown, spec.homepage),)
        source.place = shown
        return source
    tree = Archives([one.path for one in outcome], f"corpus {spec.name}")
    try:
        source = _source(spec, spec.read, tree, spec.read.patterns)
    except UserError:
        tree.close()
        raise
    source.provenance = tuple(
        Provenance(spec.name, one.version, spec.licence, one.sha256, one.source, spec.homepage) for one in outcome
    )
    return source


def _source(spec: CorpusSpec, read: Read, tree: Tree, patterns: tuple[str, ...]) -> Source:
    match read:
        case JsonTables():
            return JsonSource(spec, read, tree)
        case Gettext():
            return GettextSource(spec, read, tree)
        case HtmlTables():
            return HtmlSource(spec, read, tree)
        case Descriptions():
            return DescriptionsSource(spec, read, tree)
        case Sqlite():
            return SqliteSource(spec, read, tree)
        case ParallelText():
            return LinesSource(spec, read, tree, patterns)
        case PlainText():
            return TextSource(spec, read, tree, patterns)
        case Tsv():
            return TsvSource(spec, read, tree, patterns)
        case Jsonl():
            return JsonlSource(spec, read, tree, patterns)
        case Parquet():
            return ParquetSource(spec, read, tree, patterns)
    raise UserError(f"corpus {spec.name}: read.kind: {read.kind} does not go with obtain.kind: {spec.obtain.kind}")


def _open_local(spec: CorpusSpec) -> Source:
    read, patterns, folder = _local(spec)
    if isinstance(read, TfdsDataset):
        return TfdsSource(spec, read, folder, patterns)
    if not isinstance(read, Descriptions):
        read = read.model_copy(update={"files": patterns})
    return _source(spec, read, Files(folder), patterns)


def _local(spec: CorpusSpec) -> tuple[Read, tuple[str, ...], str]:
    """Return how a person's files are read, and their patterns and folder without variables."""
    what = f"corpus {spec.name}"
    patterns = tuple(expand_variables(pattern, what) for pattern in spec.read.patterns)
    read, obtain = spec.read, spec.obtain
    folder = expand_variables(getattr(obtain, "folder", ""), what)
    if isinstance(read, AnyPairs):
        patterns = tuple(one.strip() for pattern in patterns for one in pattern.split(",") if one.strip())
        read, patterns = pairs_of(spec, read, patterns)
    if isinstance(read, TfdsDataset):
        folder = folder or os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    return read, patterns, folder


def _listing(spec: CorpusSpec) -> tuple[str, list[tuple[str, int]]]:
    """Return the patterns of a person's files, and the names and sizes of those that there are."""
    read, patterns, folder = _local(spec)
    files = Files(folder)
    wanted = patterns
    if isinstance(read, TfdsDataset):
        wanted = tuple(f"{pattern.partition(':')[0]}/*/dataset_info.json" for pattern in patterns)
    return ", ".join(patterns), [(one.name, files.size(one.name)) for one in files.find(wanted)]


def pairs_of(spec: CorpusSpec, read: AnyPairs, patterns: tuple[str, ...]) -> tuple[Read, tuple[str, ...]]:
    """Return the kind that patterns of files of pairs are of, and the patterns as that kind writes them.

    Raises:
      UserError: they are of several kinds, or do not say where the languages of a direction stand.
    """
    common: dict[str, Any] = {"files": patterns, "key_language": read.key_language}
    kinds = {_kind(pattern) for pattern in patterns}
    shown = ", ".join(patterns)
    if len(kinds) != 1:
        raise UserError(f"corpus {spec.name}: {shown} are files of several kinds ({', '.join(sorted(kinds))})")
    for pattern in patterns:
        if not all(field in pattern for field in ("{source}", "{target}")):
            raise UserError(
                f"corpus {spec.name}: {pattern} does not say where the languages of a direction stand, as in "
                "/corpora/{source}-{target}.tsv.gz or /corpora/{source}-{target}/train.{language}"
            )
    match kinds.pop():
        case "tfds":
            patterns = tuple(pattern.removeprefix(_TFDS) for pattern in patterns)
            return TfdsDataset(kind="tfds", **common | {"files": patterns}), patterns
        case "tsv":
            return Tsv(kind="tsv", **common), patterns
        case "jsonl":
            return Jsonl(kind="jsonl", **common), patterns
        case "parquet":
            return Parquet(kind="parquet", **common), patterns
    try:
        return ParallelText(kind="parallel_text", **common), patterns
    except ValidationError:
        raise UserError(
            f"corpus {spec.name}: {shown} is taken for parallel text, and does not have {{language}} once; other files "
            "of pairs end in .tsv, .jsonl or .parquet"
        ) from None


def _kind(pattern: str) -> str:
    if pattern.startswith(_TFDS):
        return "tfds"
    ending = stem(pattern).rpartition(".")[2]
    return ending if ending in ("tsv", "jsonl", "parquet") else "parallel text"
