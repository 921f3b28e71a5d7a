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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from nmt.config import CleanConfig
from nmt.data.corpora.build import build
from nmt.data.corpora.cleaned import Corpus
from nmt.data.corpora.opening import Corpora, counted, identity, open_corpora, warn
from nmt.data.corpora.read import Source
from nmt.data.corpora.spec import CorpusSpec, load_specs
from nmt.data.corpora.spill import room_in
from nmt.data.corpora.testsets import digest_of
from nmt.data.parallel import cores
from nmt.errors import UserError
from nmt.files import cache_dir
from nmt.languages import Direction

# Part of the digest: to be raised whenever the same declarations and files give other pairs than before.
CODE_VERSION = 2


def load_pairs(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    console: Console | None = None,
    workers: int | None = None,
) -> Corpus:
    """Return the pairs of some directions from some corpora, as `clean_corpora`, with at least one of each direction.

    Raises:
      UserError: as `clean_corpora`, or a direction has no pairs.
    """
    corpus = clean_corpora(names, directions, clean, console, workers)
    _check_left(corpus)
    return corpus


def clean_corpora(
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    console: Console | None = None,
    workers: int | None = None,
) -> Corpus:
    """Return the pairs of some directions from some corpora, from the cache if they were cleaned before.

    See nmt/data/corpora/resolve.py for which of several like texts is kept, and where. At last, pairs of which either
    side also stands in a split that is held out (test from dev, both from train) are removed, and training pairs that
    overlap with held-out text.

    Args:
      names: corpora, by name or path; where they share texts, the first one has them.
      directions: canonical.
      clean: what is kept.
      console: where the progress of downloads and of cleaning, and warnings, are shown; None: nowhere.
      workers: processes; None: as many as there are cores. The result does not depend on it.

    Raises:
      UserError: a declaration is wrong, a corpus cannot be fetched or read, or none has a direction.
    """
    digest = inputs_digest(load_specs(names), directions, clean)
    folder = cache_dir("cleaned") / digest[:32]
    with _alone(folder):
        corpus = Corpus.load(folder)
        # What lacks a part of a mixture is tried again.
        if corpus is None or corpus.failures:
            _make(folder, digest, names, directions, clean, console, workers or cores())
            corpus = Corpus.load(folder)
    assert corpus is not None
    _warn(corpus, console)
    return corpus


def inputs_digest(specs: Sequence[CorpusSpec], directions: Sequence[Direction], clean: CleanConfig) -> str:
    """Return a hash of all that determines the pairs; needs no network. Other pairs, another digest.

    Raises:
      UserError: a test set of data.clean.decontaminate cannot be read.
    """
    inputs = {
        "code": CODE_VERSION,
        "corpora": [identity(spec) for spec in specs],
        "directions": [str(direction) for direction in directions],
        "clean": clean.model_dump(mode="json", exclude={"decontaminate"}),
        "test sets": [digest_of(name) for name in clean.decontaminate],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine works on a folder, and keep others out."""
    lock = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make(
    folder: Path,
    digest: str,
    names: Sequence[str],
    directions: Sequence[Direction],
    clean: CleanConfig,
    console: Console | None,
    workers: int,
) -> None:
    """Clean corpora into a folder beside, and rename it."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed: it would hold the lock otherwise
    try:
        with open_corpora(names, console) as corpora, room_in(folder.parent):
            _check_covered(directions, corpora)
            unfinished.mkdir()
            build(unfinished, digest, corpora, directions, clean, console, workers).save()
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
        raise UserError(f"cleaning leaves no pair of the direction {', '.join(gone)}")


def _warn(corpus: Corpus, console: Console | None) -> None:
    if console is None:
        return
    if unreadable := corpus.unreadable:
        shown = ", ".join(unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
        warn(console, f"{counted(len(unreadable), 'unreadable table')} left out: {shown}")
    for what, count in corpus.skipped.items():
        warn(console, f"left out of {what} ({count:,} times)")
