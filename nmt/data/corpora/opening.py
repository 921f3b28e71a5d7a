"""Opening corpora by name: declared, fetched, and ready to be read."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from nmt.data.corpora.fetch import Outcome, fetch, fetch_all
from nmt.data.corpora.read import Provenance, Source
from nmt.data.corpora.spec import CorpusSpec, load_declaration, load_spec, load_specs
from nmt.data.corpora.spec_read import JsonTables
from nmt.data.corpora.tables import JsonSource
from nmt.data.corpora.tree import Archives
from nmt.errors import UserError


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
    spec = load_spec(name)
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


def _open(spec: CorpusSpec, outcome: Outcome) -> Source:
    if isinstance(outcome, UserError):
        raise outcome
    tree = Archives([one.path for one in outcome], f"corpus {spec.name}")
    try:
        source = _source(spec, tree)
    except UserError:
        tree.close()
        raise
    source.provenance = tuple(
        Provenance(spec.name, one.version, spec.licence, one.sha256, one.source, spec.homepage) for one in outcome
    )
    return source


def _source(spec: CorpusSpec, tree: Archives) -> Source:
    if isinstance(spec.read, JsonTables):
        return JsonSource(spec, spec.read, tree)
    raise UserError(f"corpus {spec.name}: {spec.read.kind} is not read")
