"""Counts of a corpus before cleaning, kept in the cache."""

import concurrent.futures
import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.cache import corpus_folder
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.identity import CODE_VERSION, corpus_identity
from nmt.corpora.obtain.kinds import obtain_kind
from nmt.corpora.opening import open_spec
from nmt.corpora.parallel import available_cores
from nmt.corpora.readers.reader import CorpusReader
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.languages import Direction
from nmt.progress import SILENT, Reporter


@dataclass(frozen=True)
class Counts:
    """Rows and pairs of a corpus before cleaning."""

    rows: int  # texts of the key language
    pairs: dict[str, int]  # texts that have a translation (of monolingual corpora: all), by the language's code
    unregistered: list[str]  # codes that the registry does not know
    unreadable: list[str]  # files, with the reason
    skipped: dict[str, int] = field(default_factory=dict)  # by kind

    @property
    def total(self) -> int:
        """All pairs with the key language."""
        return sum(self.pairs.values())


def stored_counts(spec: CorpusSpec) -> Counts | None:
    """Return the counts of a corpus from the cache, or None if it was not counted."""
    # Quick, unlike the name of the file, for which the person's own files may have to be hashed.
    if not any(corpus_folder(spec).glob("counts-*.json")):
        return None
    try:
        return Counts(**json.loads(counts_file(spec).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, UserError):
        return None


def counts_file(spec: CorpusSpec) -> Path:
    """Return the file that keeps the counts of a corpus; other text has another file.

    Raises:
      UserError: a variable of the declaration is not set, or a fetched file is not the one that is pinned.
    """
    inputs = {"code": CODE_VERSION, "corpus": corpus_identity(spec)}
    if not obtain_kind(spec).has_versions:
        inputs["files"] = [one.sha256 for one in find_fetched(spec) or ()]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    return corpus_folder(spec) / f"counts-{digest}.json"


def expected_pairs(sources: Iterable[CorpusReader], directions: Sequence[Direction]) -> int | None:
    """Return roughly how many pairs of some directions corpora have; None if any of them was not counted."""
    total = 0
    for source in sources:
        if (counts := stored_counts(source.spec)) is None:
            return None
        for direction in directions:
            if source.has(*direction):
                # Counts are of pairs with the key language: between two others there are no more than of either.
                total += min((counts.pairs[code] for code in set(direction) if code in counts.pairs), default=0)
    return total


def count_corpus(spec: CorpusSpec) -> Counts:
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


def count_corpora(specs: Sequence[CorpusSpec], progress: Reporter = SILENT) -> dict[str, Counts | UserError]:
    """Count corpora that are not counted yet, in as many processes as there are cores.

    Args:
      specs: corpora that are fetched.
      progress: shows which corpora are counted.
    """
    results: dict[str, Counts | UserError] = {spec.name: found for spec in specs if (found := stored_counts(spec))}
    missing = [spec for spec in specs if spec.name not in results]
    if not missing:
        return results
    workers = min(len(missing), available_cores())
    with (
        progress.track("reading and counting", len(missing), "corpora") as task,
        concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
    ):
        futures = {pool.submit(count_corpus, spec): spec.name for spec in missing}
        for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
            name = futures[future]
            try:
                results[name] = future.result()
            except UserError as error:
                results[name] = error
            progress.say(f"counted {name}")
            task.update(done)
    return results
