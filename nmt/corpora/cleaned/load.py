"""From declarations to pairs: fetch, read, clean, deduplicate, split; in bounded memory, once for the same inputs.

What was cleaned is kept in the cache by the digest of all that determines it. It is made in a folder beside and renamed
into place, so that nothing half-written is taken for whole; whoever was killed starts over.
"""

import contextlib
import fcntl
import hashlib
import json
import os
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
from nmt.corpora.cleaned.testsets import test_set_digest
from nmt.corpora.counts import expected_pairs
from nmt.corpora.declare.spec import CorpusSpec, load_specs
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.obtain.identity import CODE_VERSION, corpus_identity
from nmt.corpora.opening import Corpora, named_corpora, open_corpora
from nmt.corpora.parallel import available_cores
from nmt.corpora.readers.read import Source
from nmt.corpora.wording import damaged_files, unknown_languages
from nmt.errors import UserError
from nmt.files import cache_dir
from nmt.languages import Direction
from nmt.progress import SILENT, Progress


def load_pairs(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Progress = SILENT,
    workers: int | None = None,
) -> Corpus:
    """Return the pairs of some directions from some corpora, as `clean_corpora`, with at least one of each direction.

    Raises:
      UserError: as `clean_corpora`, or a direction has no pairs.
    """
    corpus = clean_corpora(names, directions, clean, progress, workers)
    _check_left(corpus)
    return corpus


def clean_corpora(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Progress = SILENT,
    workers: int | None = None,
) -> Corpus:
    """Return the pairs of some directions from some corpora, from the cache if they were cleaned before.

    See nmt/corpora/cleaned/resolve.py for which of several like texts is kept, and where. At last, pairs of which
    either side also stands in a split that is held out (test from dev, both from train) are removed, and training pairs
    that overlap with held-out text.

    Args:
      names: corpora, by name or path; where they share texts, the first one has them.
      directions: canonical.
      clean: what is kept.
      progress: who is told of downloads and of cleaning, and warned.
      workers: processes; None: as many as there are cores. The result does not depend on it.

    Raises:
      UserError: a declaration is wrong, a corpus cannot be fetched or read, or none has a direction. Of parts of
        mixtures, those that cannot be had are left out, so that a direction may have no pairs.
    """
    specs = load_specs(names)
    digest = inputs_digest(specs, directions, clean, progress, named_corpora(names))
    folder = cache_dir("cleaned") / digest[:32]
    with _alone(folder):
        corpus = Corpus.load(folder)
        # What lacks a part of a mixture is tried again.
        if corpus is None or corpus.failures or not _is_current(corpus, specs):
            job = CleaningJob(digest, directions, clean, workers or available_cores(), progress=progress)
            _make(folder, names, job)
            corpus = Corpus.load(folder)
    assert corpus is not None
    _warn(corpus, progress)
    return corpus


def inputs_digest(
    specs: Sequence[CorpusSpec],
    directions: Sequence[Direction],
    clean: CleanConfig,
    progress: Progress = SILENT,
    named: Collection[str] | None = None,
) -> str:
    """Return a hash of all that determines the pairs; needs no network. Other pairs, another digest.

    Packages count by their declarations, so that a run has one digest before and after they are fetched, and when the
    cache was deleted. The contents of a person's own files count: they are read once, see
    nmt/corpora/obtain/contents.py.

    Args:
      specs: the corpora.
      directions: canonical.
      clean: what is kept.
      progress: who is told when much has to be hashed.
      named: names of corpora that must be there; None: all. Parts of mixtures need not.

    Raises:
      UserError: a test set of data.clean.decontaminate cannot be read, or a variable that says where a corpus is that
        must be there is not set.
    """
    inputs = {
        "code": CODE_VERSION,
        "corpora": [_identity(spec, progress, named is None or spec.name in named) for spec in specs],
        "directions": [str(direction) for direction in directions],
        "clean": clean.model_dump(mode="json", exclude={"decontaminate"}),
        "test sets": [test_set_digest(name) for name in clean.decontaminate],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _identity(spec: CorpusSpec, progress: Progress, must_be_there: bool) -> dict[str, Any]:
    try:
        return corpus_identity(spec, progress)
    except UserError:
        if must_be_there:
            raise
        return spec.identity()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine works on a folder, and keep others out."""
    lock = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make(folder: Path, names: Sequence[str], job: CleaningJob) -> None:
    """Clean corpora into a folder beside, and rename it."""
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
    """Clean corpora into a folder, which is made.

    A part of a mixture that turns out to be damaged is left out as a whole, and cleaning begins anew: how much of it
    had been read says nothing of how much was right, such as where the lines of two files no longer fit.
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
    """Return whether a corpus was made of what is fetched now, which may be newer; what is not there says nothing."""
    used = defaultdict(list)
    for one in corpus.provenance:
        used[one.name].append(one.sha256)
    try:
        there = {spec.name: find_fetched(spec) for spec in specs}
    except UserError:
        return False
    return all([one.sha256 for one in files] == used[name] for name, files in there.items() if files)


def _check_covered(directions: Iterable[Direction], corpora: Corpora) -> None:
    sources = corpora.sources
    if missing := [str(one) for one in directions if not any(source.has(*one) for source in sources)]:
        have = "; ".join(_what_it_has(source) for source in sources)
        lost = f"; left out: {', '.join(corpora.failures)}" if corpora.failures else ""
        raise UserError(f"no text for the direction {', '.join(missing)}: {have}{lost}")


def _what_it_has(source: Source) -> str:
    place = f" at {source.place}" if source.place else ""
    return f"corpus {source.spec.name}{place} has {', '.join(source.languages)}"


def _check_left(corpus: Corpus) -> None:
    gone = [
        f"{direction} ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common()) or 'none read'})"
        for direction, reasons in corpus.rejections.items()
        if not any(size.pairs for size in corpus.sizes[direction].values())
    ]
    if gone:
        lost = "".join(f"; left out: {why}" for why in corpus.failures.values())
        raise UserError(f"cleaning leaves no pair of the direction {', '.join(gone)}{lost}")


def _warn(corpus: Corpus, progress: Progress) -> None:
    for name, codes in corpus.unregistered.items():
        progress.warn(unknown_languages(name, codes))
    if corpus.unreadable:
        progress.warn(damaged_files(corpus.unreadable))
    for what, count in corpus.skipped.items():
        progress.warn(f"left out of {what} ({count:,} times)")
