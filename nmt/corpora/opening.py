"""Opening corpora by name: declared, fetched, and ready to be read."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from nmt.corpora.declare.spec import CorpusSpec, load_declaration, load_spec, load_specs
from nmt.corpora.obtain.fetch import FetchOutcome, fetch_corpora, fetch_corpus
from nmt.corpora.obtain.kind import FetchedKind
from nmt.corpora.obtain.kinds import has_own_files, obtain_kind
from nmt.corpora.obtain.own import find_own, own_files
from nmt.corpora.readers.kinds import open_files
from nmt.corpora.readers.reader import CorpusReader, FileProvenance
from nmt.corpora.readers.tree import Files
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.progress import SILENT, Reporter


@dataclass(frozen=True)
class Corpora:
    """Open corpora, and the errors of parts of mixtures that could not be obtained or opened."""

    sources: tuple[CorpusReader, ...]
    failures: dict[str, str] = field(default_factory=dict)  # messages by the name of the corpus
    named: frozenset[str] = frozenset()  # corpora that were asked for by their own names

    def without(self, name: str, why: str) -> "Corpora":
        """Return these corpora without a part of a mixture that turned out to be damaged.

        Raises:
          UserError: the corpus was asked for by its own name, or no corpus is left.
        """
        if name in self.named:
            raise UserError(why)
        failures = {**self.failures, name: why}
        if not (left := tuple(source for source in self.sources if source.spec.name != name)):
            raise UserError("; ".join(failures.values()))
        return replace(self, sources=left, failures=failures)


def open_corpus(name: str, progress: Reporter = SILENT) -> CorpusReader:
    """Return one corpus, fetched if it must be, for use in a `with` statement.

    Args:
      name: of data/NAME.yaml, or a path; a mixture is opened by `open_corpora`.
      progress: shows downloads.

    Raises:
      UserError: the declaration is wrong, it is a mixture, or the corpus cannot be fetched or opened.
    """
    return open_spec(load_spec(name), progress)


def open_spec(spec: CorpusSpec, progress: Reporter = SILENT) -> CorpusReader:
    """Return the corpus of a declaration; see `open_corpus`."""
    return _open(spec, fetch_corpus(spec, progress))


@contextlib.contextmanager
def open_corpora(names: Sequence[str], progress: Reporter = SILENT, *, warns: bool = True) -> Iterator[Corpora]:
    """Open corpora and all parts of mixtures, and close them at the end.

    A part of a mixture that cannot be obtained or opened is left out, with a warning. A corpus that is asked for by its
    own name must be there.

    Args:
      names: corpora, by name or path.
      progress: shows downloads and warnings.
      warns: whether to warn of parts that are left out.

    Raises:
      UserError: as `open_corpus`, or no corpus is left.
    """
    specs, named = load_specs(names), named_corpora(names)
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sources = []
        for spec, outcome in zip(specs, fetch_corpora(specs, progress).values(), strict=True):
            try:
                sources.append(stack.enter_context(_open(spec, outcome)))
            except UserError as error:
                if spec.name in named:
                    raise
                failures[spec.name] = str(error)
                if warns:
                    progress.warn(f"left out: {error}")
        if not sources:
            raise UserError("; ".join(failures.values()))
        yield Corpora(tuple(sources), failures, named)


def default_directions(name: str, progress: Reporter = SILENT) -> tuple[Direction, ...]:
    """Return the directions from every language of a corpus or mixture into its key language.

    For monolingual corpora: from every language into itself, which stands for denoising.

    Raises:
      UserError: it cannot be obtained, or has no language but its key language.
    """
    with open_corpora([name], progress, warns=False) as corpora:
        found = {
            Direction(code, source.key_language)
            for source in corpora.sources
            for code in source.languages
            if code != source.key_language and source.has(code, source.key_language)
        } | {Direction(code, code) for source in corpora.sources for code in source.languages if source.has(code, code)}
    if not found:
        raise UserError(f"corpus {name} has no language but its key language; name directions with --directions")
    return tuple(sorted(found))


def named_corpora(names: Sequence[str]) -> frozenset[str]:
    """Return the names of single corpora among some names of corpora and mixtures."""
    declarations = map(load_declaration, names)
    return frozenset(one.name for one in declarations if isinstance(one, CorpusSpec))


def _open(spec: CorpusSpec, outcome: FetchOutcome) -> CorpusReader:
    if isinstance(outcome, UserError):
        raise outcome
    if has_own_files(spec):
        return _open_own(spec)
    kind = obtain_kind(spec)
    assert isinstance(kind, FetchedKind)
    tree = kind.open_tree(spec, outcome)
    source = open_files(spec, spec.read, tree, spec.read.patterns)
    source.provenance = tuple(
        FileProvenance(spec.name, one.version, spec.licence, one.sha256, one.source, spec.homepage) for one in outcome
    )
    return source


def _open_own(spec: CorpusSpec) -> CorpusReader:
    own = find_own(spec)
    source = open_files(spec, own.read, Files(own.folder), own.patterns)
    source.provenance = tuple(
        FileProvenance(spec.name, one.modified, spec.licence, one.sha256, one.name, spec.homepage)
        for one in own_files(spec)
    )
    source.place = own.shown
    return source
