"""From declarations to cleaned pairs, once for the same inputs.

A cleaned corpus is kept in the cache under the digest of everything that determines it. It is built in a folder beside
and then renamed, so a process that is killed leaves nothing that could be taken for a whole corpus.
"""

import contextlib
import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nmt.config import CleanConfig
from nmt.corpora.cleaned.build import CleaningJob, DamagedError, build
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.spill import explain_full_disk
from nmt.corpora.cleaned.testsets import find_test_sets, test_set_digest
from nmt.corpora.counts import expected_pairs
from nmt.corpora.declare.spec import CorpusSpec, load_specs
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.identity import CODE_VERSION, corpus_identity
from nmt.corpora.opening import Corpora, named_corpora, open_corpora
from nmt.corpora.parallel import available_cores
from nmt.corpora.readers.reader import CorpusReader
from nmt.corpora.wording import damaged_files, unknown_languages
from nmt.errors import UserError
from nmt.files import cache_dir
from nmt.languages import Direction
from nmt.locks import file_lock
from nmt.progress import SILENT, Reporter


def load_pairs(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Reporter = SILENT,
    workers: int | None = None,
) -> Corpus:
    """Clean corpora as `clean_corpora` does, and insist on at least one pair of each direction.

    Raises:
      UserError: as `clean_corpora`, or a direction has no pairs.
    """
    corpus = clean_corpora(names, directions, clean, progress, workers)
    _check_kept(corpus)
    return corpus


def clean_corpora(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Reporter = SILENT,
    workers: int | None = None,
) -> Corpus:
    """Return the cleaned pairs of some directions from some corpora; from the cache if they were cleaned before.

    nmt/corpora/cleaned/resolve.py decides which of several like texts is kept, and in which split. Then it rejects
    pairs with a side that also occurs in a split held out from theirs (test from dev, both from train), and training
    pairs that overlap with held-out text.

    Args:
      names: corpora, by name or path; a text that several share belongs to the first.
      directions: canonical.
      clean: configuration of the filters.
      progress: shows downloads, cleaning and warnings.
      workers: processes; None: as many as there are cores. The result does not depend on their number.

    Raises:
      UserError: a declaration is wrong, a corpus cannot be fetched or read, or no corpus has one of the directions.
        Parts of mixtures that cannot be obtained are left out, so a direction may have no pairs.
    """
    specs = load_specs(names)
    digest = inputs_digest(specs, directions, clean, progress, named_corpora(names))
    folder = cache_dir("cleaned") / digest[:32]
    with _locked(folder):
        corpus = Corpus.load(folder)
        # A corpus that lacks a part of a mixture is cleaned anew: the part may be there now.
        if corpus is None or corpus.failures or not _is_current(corpus, specs) or not _counts_test_sets(corpus, clean):
            job = CleaningJob(digest, directions, clean, workers or available_cores(), progress=progress)
            _make(folder, names, job)
            corpus = Corpus.load(folder)
    assert corpus is not None
    # The files are known by their contents, and may have had other names when they were read.
    named = zip(corpus.test_sets, find_test_sets(clean.decontaminate), strict=True)
    corpus = replace(corpus, test_sets=tuple(one._replace(file=name) for one, name in named))
    _warn(corpus, progress)
    return corpus


def inputs_digest(
    specs: Sequence[CorpusSpec],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Reporter = SILENT,
    named: Collection[str] | None = None,
) -> str:
    """Return a hash of everything that determines the pairs; needs no network.

    Packages count by their declarations, so a run has the same digest before and after they are fetched, and after the
    cache is deleted. The person's own files count by their contents, which are read once, see
    nmt/corpora/obtain/contents.py.

    Args:
      specs: the corpora.
      directions: canonical.
      clean: configuration of the filters.
      progress: shows the hashing of large files.
      named: names of corpora that must be there, unlike parts of mixtures; None: all.

    Raises:
      UserError: a test set of data.clean.decontaminate cannot be read, or the path of a corpus that must be there has
        a variable that is not set.
    """
    inputs = {
        "code": CODE_VERSION,
        "corpora": [_identity(spec, progress, named is None or spec.name in named) for spec in specs],
        "directions": [str(direction) for direction in directions],
        "clean": clean.model_dump(mode="json", exclude={"decontaminate"}),
        "test sets": [test_set_digest(name) for name in find_test_sets(clean.decontaminate)],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _identity(spec: CorpusSpec, progress: Reporter, must_be_there: bool) -> dict[str, Any]:
    try:
        return corpus_identity(spec, progress)
    except UserError:
        if must_be_there:
            raise
        return spec.identity()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder against other processes of this machine; wait for it if need be."""
    with file_lock(folder.with_suffix(".lock"), wait=True) as held:
        if not held:
            raise UserError(f"{folder.parent} is on a file system without locks: set NMT_CACHE to another folder")
        yield


def _make(folder: Path, names: Sequence[str], job: CleaningJob) -> None:
    """Clean corpora into a folder beside, and rename it to `folder`."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed: it would hold the lock otherwise
    try:
        with open_corpora(names, job.progress) as corpora, explain_full_disk(folder.parent):
            _check_covered(job.directions, corpora)
            _build(unfinished, corpora, job)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _build(folder: Path, corpora: Corpora, job: CleaningJob) -> None:
    """Clean corpora into a new folder.

    When a part of a mixture turns out to be damaged, it is left out as a whole, and cleaning starts over: text read
    before the damage was found may be wrong too, as where the lines of two files do not fit.
    """
    while True:
        folder.mkdir()
        try:
            expected = expected_pairs(corpora.sources, job.directions)
            build(folder, corpora, replace(job, expected_pairs=expected)).save()
            return
        except DamagedError as error:
            corpora = corpora.without(error.corpus, str(error))
            job.progress.warn(f"left out: {error}")
            shutil.rmtree(folder)


def _is_current(corpus: Corpus, specs: Iterable[CorpusSpec]) -> bool:
    """Return whether a cleaned corpus was made of the files in the cache; files that are not there do not count."""
    used = defaultdict(list)
    for one in corpus.provenance:
        used[one.name].append(one.sha256)
    try:
        there = {spec.name: find_fetched(spec) for spec in specs}
    except UserError:
        return False
    return all([one.sha256 for one in files] == used[name] for name, files in there.items() if files)


def _counts_test_sets(corpus: Corpus, clean: CleanConfig) -> bool:
    """Return whether a cleaned corpus says which pairs each named test set removed; older versions did not count."""
    return len(corpus.test_sets) == len(find_test_sets(clean.decontaminate))


def _check_covered(directions: Iterable[Direction], corpora: Corpora) -> None:
    sources = corpora.sources
    if missing := [str(one) for one in directions if not any(source.has(*one) for source in sources)]:
        have = "; ".join(_describe_languages(source) for source in sources)
        lost = f"; left out: {', '.join(corpora.failures)}" if corpora.failures else ""
        raise UserError(f"no text for the direction {', '.join(missing)}: {have}{lost}")


def _describe_languages(source: CorpusReader) -> str:
    place = f" at {source.place}" if source.place else ""
    return f"corpus {source.spec.name}{place} has {', '.join(source.languages)}"


def _check_kept(corpus: Corpus) -> None:
    gone = [
        f"{direction} ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common()) or 'none read'})"
        for direction, reasons in corpus.rejections.items()
        if not any(size.pairs for size in corpus.sizes[direction].values())
    ]
    if gone:
        lost = "".join(f"; left out: {why}" for why in corpus.failures.values())
        raise UserError(f"cleaning leaves no pair of the direction {', '.join(gone)}{lost}")


def _warn(corpus: Corpus, progress: Reporter) -> None:
    for name, codes in corpus.unregistered.items():
        progress.warn(unknown_languages(name, codes))
    if corpus.unreadable:
        progress.warn(damaged_files(corpus.unreadable))
    for what, count in corpus.skipped.items():
        progress.warn(f"left out of {what} ({count:,} times)")
    for sign in corpus.signs:
        if sign.warns:
            progress.warn(str(sign))
    for test_set in corpus.test_sets:
        progress.say(str(test_set))
