"""Fetching corpora: files missing from the cache are downloaded, several at once, each whole or not at all."""

import concurrent.futures
import contextlib
import threading
from collections.abc import Sequence

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.cache import Download, Obtained, StoppedError, Watch, megabytes, remove_damaged
from nmt.corpora.obtain.kind import FetchedKind, Scratch
from nmt.corpora.obtain.kinds import obtain_kind
from nmt.errors import UserError
from nmt.progress import SILENT, Reporter

AT_ONCE = 4  # downloads; more would be a burden on one registry

FetchOutcome = tuple[Obtained, ...] | UserError


def fetch_corpus(spec: CorpusSpec, progress: Reporter = SILENT) -> tuple[Obtained, ...]:
    """Return a corpus's files in the cache; download those that are not there.

    Args:
      spec: the corpus.
      progress: shows the files, and how many bytes of them are downloaded.

    Raises:
      UserError: no client, no registry, no such version, no room, another SHA-256; nothing half-written is left.
    """
    outcome = fetch_corpora([spec], progress)[spec.name]
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def fetch_corpora(specs: Sequence[CorpusSpec], progress: Reporter = SILENT) -> dict[str, FetchOutcome]:
    """Fetch several corpora; return the files in the cache, or the error, of each by its name.

    A corpus whose files the person has is not fetched: it has no files in the cache.
    """
    outcomes: dict[str, FetchOutcome] = {}
    missing = []
    for spec in specs:
        try:
            found = find_fetched(spec)
        except UserError as error:
            outcomes[spec.name] = error
            continue
        if found is None:
            missing.append(spec)
        else:
            outcomes[spec.name] = found
    if missing:
        outcomes |= _fetch_missing(missing, progress)
    return {spec.name: outcomes[spec.name] for spec in specs}


def find_fetched(spec: CorpusSpec) -> tuple[Obtained, ...] | None:
    """Return a corpus's files in the cache, or None if any is missing or damaged; nothing is fetched.

    Raises:
      UserError: a file is not the one that the declaration pins.
    """
    kind = obtain_kind(spec)
    return kind.cached(spec) if isinstance(kind, FetchedKind) and not kind.has_own_files(spec) else ()


def _fetch_missing(specs: Sequence[CorpusSpec], progress: Reporter) -> dict[str, FetchOutcome]:
    outcomes: dict[str, FetchOutcome] = {}
    downloads: dict[str, Sequence[Download]] = {}
    kinds = [(spec, kind) for spec in specs if isinstance(kind := obtain_kind(spec), FetchedKind)]
    with contextlib.ExitStack() as stack:
        scratch = Scratch(stack)
        for spec, kind in kinds:
            for path in remove_damaged(spec):
                progress.say(f"corpus {spec.name}: {path} is damaged, and fetched again")
            try:
                downloads[spec.name] = kind.plan(spec, scratch)
            except UserError as error:
                outcomes[spec.name] = error
        results = _run([one for ones in downloads.values() for one in ones], progress)
    for spec, kind in kinds:
        if spec.name in downloads:
            done = [results[one] for one in downloads[spec.name]]
            errors = [one for one in done if isinstance(one, UserError)]
            files = tuple(one for one in done if isinstance(one, Obtained))
            outcomes[spec.name] = errors[0] if errors else files
            if not errors:
                kind.note_fetched(spec, files)
    return outcomes


def _run(downloads: Sequence[Download], progress: Reporter) -> dict[Download, Obtained | UserError]:
    """Fetch files, `AT_ONCE` at a time; an interruption ends all downloads."""
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {one: pool.submit(_one, one, progress, stop) for one in downloads}
        try:
            return {one: future.result() for one, future in futures.items()}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _one(download: Download, progress: Reporter, stop: threading.Event) -> Obtained | UserError:
    if stop.is_set():
        raise StoppedError
    what = f"fetching {download.title}"
    progress.say(f"{what} ({megabytes(download.bytes)} MB)")
    with progress.track(what, download.bytes, "bytes") as task:
        try:
            return download.fetch(Watch(lambda size: task.update(min(size, download.bytes)), stop))
        except UserError as error:
            return error
