"""What there is to learn from: every declared corpus, its licence and source, and what it holds once it is fetched."""

import concurrent.futures
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec, MixtureSpec, load_declaration, load_specs
from nmt.corpora.obtain.counts import Counts, counted, counts_file
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.kinds import has_own_files, obtain_kind
from nmt.corpora.opening import open_spec
from nmt.errors import UserError
from nmt.files import atomic_write, declarations
from nmt.progress import SILENT, Progress


@dataclass(frozen=True)
class Entry:
    """One line of the list of corpora."""

    name: str
    licence: str
    kind: str  # how it is obtained, or mixture
    languages: int | None  # beside the key language; None: not known before it is fetched
    pairs: int | None  # with the key language, before cleaning
    bytes: int | None  # of what is downloaded
    fetched: bool | None  # None: nothing is to be fetched
    source: str
    homepage: str
    key_language: str = ""  # that the others are translated from; empty: there is none, or parts have different ones


def entries() -> list[Entry]:
    """Return an entry for every declaration, sorted by name; one that is wrong has its error for a source."""
    return [_entry_of(name, path) for name, path in sorted(declarations("data").items())]


def _entry_of(name: str, path: Path) -> Entry:
    try:
        declaration = load_declaration(str(path))
        return _mixture(declaration) if isinstance(declaration, MixtureSpec) else entry(declaration)
    except UserError as error:
        return Entry(name, "", "wrong", None, None, None, None, str(error), "")


def entry(spec: CorpusSpec) -> Entry:
    """Return the entry of a corpus."""
    counts = counted(spec)
    there: bool | None = None
    if not has_own_files(spec):
        try:
            there = find_fetched(spec) is not None
        except UserError:
            there = False
    return Entry(
        spec.name,
        spec.licence,
        spec.obtain.kind,
        len(counts.pairs) if counts else len(spec.covers) or None,
        counts.total if counts else None,
        getattr(spec.obtain, "bytes", None),
        there,
        obtain_kind(spec).origin(spec),
        spec.homepage,
        key_language_of(spec),
    )


def _mixture(mixture: MixtureSpec) -> Entry:
    specs = load_specs(mixture.mixture)
    parts = [entry(spec) for spec in specs]
    counts = [found for spec in specs if (found := counted(spec))]
    codes = {code for one in counts for code in one.pairs}
    keys = {part.key_language for part in parts}
    return Entry(
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


def key_language_of(spec: CorpusSpec) -> str:
    """Return the language that a corpus's pairs have in common, as its declaration writes it; none of single texts."""
    return "" if spec.monolingual else spec.read.key_language


def count(spec: CorpusSpec) -> Counts:
    """Read a corpus that is fetched, count it, and keep the counts in the cache.

    Raises:
      UserError: it cannot be opened, or its files do not fit together.
    """
    rows, pairs = 0, Counter[str]()
    with open_spec(spec) as source:
        for row in source.rows(source.languages):
            rows += 1
            pairs.update(language for language, text in row.translations.items() if text)
            if spec.monolingual:
                pairs[row.language] += 1
        counts = Counts(rows, dict(pairs.most_common()), source.unregistered, source.unreadable, dict(source.skipped))
    with atomic_write(counts_file(spec)) as temporary:
        temporary.write_text(json.dumps(asdict(counts)) + "\n")
    return counts


def count_all(specs: Sequence[CorpusSpec], progress: Progress = SILENT) -> dict[str, Counts | UserError]:
    """Count corpora that are not counted yet, in as many processes as there are cores.

    Args:
      specs: corpora that are fetched.
      progress: who is told which are counted.
    """
    results: dict[str, Counts | UserError] = {spec.name: found for spec in specs if (found := counted(spec))}
    missing = [spec for spec in specs if spec.name not in results]
    if not missing:
        return results
    workers = min(len(missing), len(os.sched_getaffinity(0)))
    with (
        progress.track("reading and counting", len(missing), "corpora") as task,
        concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
    ):
        futures = {pool.submit(count, spec): spec.name for spec in missing}
        for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
            name = futures[future]
            try:
                results[name] = future.result()
            except UserError as error:
                results[name] = error
            progress.say(f"counted {name}")
            task.update(done)
    return results
