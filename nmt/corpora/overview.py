"""The list of all declared corpora: licence, origin, size, and the counts of those that are fetched."""

from dataclasses import dataclass
from pathlib import Path

from nmt.corpora.counts import stored_counts
from nmt.corpora.declare.spec import CorpusSpec, MixtureSpec, load_declaration, load_specs
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.kinds import has_own_files, obtain_kind
from nmt.errors import UserError
from nmt.files import declarations


@dataclass(frozen=True)
class CorpusEntry:
    """A line of the list of corpora."""

    name: str
    licence: str
    kind: str  # `obtain.kind`, or mixture
    languages: int | None  # besides the key language; None: unknown until it is fetched
    pairs: int | None  # with the key language, before cleaning
    bytes: int | None  # of the downloads
    fetched: bool | None  # None: nothing is to be fetched
    source: str
    homepage: str
    key_language: str = ""  # empty: single texts, or the parts of a mixture differ


def list_entries() -> list[CorpusEntry]:
    """Return an entry for every declaration, sorted by name; the source of a wrong declaration is its error."""
    return [_load_entry(name, path) for name, path in sorted(declarations("data").items())]


def _load_entry(name: str, path: Path) -> CorpusEntry:
    try:
        declaration = load_declaration(str(path))
        return _mixture(declaration) if isinstance(declaration, MixtureSpec) else corpus_entry(declaration)
    except UserError as error:
        return CorpusEntry(name, "", "wrong", None, None, None, None, str(error), "")


def corpus_entry(spec: CorpusSpec) -> CorpusEntry:
    """Return the entry of a corpus."""
    counts = stored_counts(spec)
    there: bool | None = None
    if not has_own_files(spec):
        try:
            there = find_fetched(spec) is not None
        except UserError:
            there = False
    return CorpusEntry(
        spec.name,
        spec.licence,
        spec.obtain.kind,
        len(counts.pairs) if counts else len(spec.covers) or None,
        counts.total if counts else None,
        getattr(spec.obtain, "bytes", None),
        there,
        obtain_kind(spec).origin(spec),
        spec.homepage,
        declared_key_language(spec),
    )


def _mixture(mixture: MixtureSpec) -> CorpusEntry:
    specs = load_specs(mixture.mixture)
    parts = [corpus_entry(spec) for spec in specs]
    counts = [found for spec in specs if (found := stored_counts(spec))]
    codes = {code for one in counts for code in one.pairs}
    keys = {part.key_language for part in parts}
    return CorpusEntry(
        mixture.name,
        ", ".join(dict.fromkeys(part.licence for part in parts)),
        "mixture",
        len(codes) or len(mixture.covers) or None,
        sum(one.total for one in counts) if len(counts) == len(parts) else None,
        sum(part.bytes or 0 for part in parts),
        all(part.fetched is not False for part in parts),
        ", ".join(part.name for part in parts),
        "",
        keys.pop() if len(keys) == 1 else "",
    )


def declared_key_language(spec: CorpusSpec) -> str:
    """Return the key language of a corpus as its declaration writes it; empty for monolingual text."""
    return "" if spec.monolingual else spec.read.key_language
