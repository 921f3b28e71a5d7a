"""Fetching corpora: what is missing in the cache, several files at once, each whole or not at all."""

import concurrent.futures
import contextlib
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.declare.spec_obtain import (
    DebianDescriptions,
    DebianPackages,
    MtdataSets,
    NpmPackage,
    PypiPackage,
)
from nmt.corpora.obtain.cache import (
    FORMAT,
    Download,
    Obtained,
    StoppedError,
    Watch,
    content_key,
    corpus_folder,
    megabytes,
    read_index,
    remove_damaged,
    usable,
    write_index,
)
from nmt.corpora.obtain.contents import known_sha256
from nmt.corpora.obtain.debian import Apt, plan_packages
from nmt.corpora.obtain.descriptions import DescriptionsDownload
from nmt.corpora.obtain.identity import is_own
from nmt.corpora.obtain.mtdata import MtdataDownload, find_mtdata
from nmt.corpora.obtain.npm import NpmDownload
from nmt.corpora.obtain.pypi import PypiDownload
from nmt.errors import UserError
from nmt.progress import SILENT, Progress

# Of one registry's server no more is asked at a time.
AT_ONCE = 4

Outcome = tuple[Obtained, ...] | UserError


def fetch(spec: CorpusSpec, progress: Progress = SILENT) -> tuple[Obtained, ...]:
    """Return a corpus's files in the cache; download those that are not there.

    Args:
      spec: the corpus.
      progress: who is told which files are fetched, and how many bytes of them are there.

    Raises:
      UserError: no client, no registry, no such version, no room, another SHA-256; nothing half-written is left.
    """
    outcome = fetch_all([spec], progress)[spec.name]
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def fetch_all(specs: Sequence[CorpusSpec], progress: Progress = SILENT) -> dict[str, Outcome]:
    """Fetch several corpora; return the files of each, or why it could not be had, by its name.

    The files of a corpus that a person has are not fetched; there are none of them.
    """
    outcomes: dict[str, Outcome] = {}
    missing = []
    for spec in specs:
        try:
            found = fetched(spec)
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


def fetched(spec: CorpusSpec) -> tuple[Obtained, ...] | None:
    """Return a corpus's files in the cache, or None where they are not all there; nothing is fetched.

    Raises:
      UserError: a file is not the one that the declaration pins.
    """
    obtain = spec.obtain
    if is_own(spec):
        return ()
    folder = corpus_folder(spec)
    if isinstance(obtain, PypiPackage) and _is_wheel(spec):
        path = folder / obtain.file
        with usable(folder):
            if not path.is_file():
                return None
            found = known_sha256(path)
        if found != obtain.sha256:
            raise UserError(
                f"corpus {spec.name}: {path} is not the pinned file; delete it to have it fetched again "
                f"(SHA-256 {found}, not {obtain.sha256})"
            )
        return (Obtained(path, f"PyPI {obtain.package}", obtain.version, found, obtain.bytes),)
    return read_index(spec)


def _is_wheel(spec: CorpusSpec) -> bool:
    """Return whether the cache has the very file that the declaration pins, which needs no index."""
    return isinstance(spec.obtain, PypiPackage) and spec.obtain.file.endswith(".whl")


def _fetch_missing(specs: Sequence[CorpusSpec], progress: Progress) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    downloads: dict[str, list[Download]] = {}
    with contextlib.ExitStack() as stack:
        planner = _Planner(stack)
        for spec in specs:
            for path in remove_damaged(spec):
                progress.say(f"corpus {spec.name}: {path} is damaged, and fetched again")
            try:
                downloads[spec.name] = planner.plan(spec)
            except UserError as error:
                outcomes[spec.name] = error
        results = _run([one for ones in downloads.values() for one in ones], progress)
    for spec in specs:
        if spec.name in downloads:
            done = [results[one] for one in downloads[spec.name]]
            errors = [one for one in done if isinstance(one, UserError)]
            files = tuple(one for one in done if isinstance(one, Obtained))
            outcomes[spec.name] = errors[0] if errors else files
            if not errors and not _is_wheel(spec):
                write_index(spec, files)
    return outcomes


class _Planner:
    """Says which downloads a corpus needs; asks apt for its lists once, and only if they are needed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._apt: Apt | None = None

    def plan(self, spec: CorpusSpec) -> list[Download]:
        """Return the downloads of a corpus."""
        folder, obtain, patterns = corpus_folder(spec), spec.obtain, spec.read.patterns
        match obtain:
            case PypiPackage():
                name = obtain.file if _is_wheel(spec) else f"{obtain.file}-{content_key(spec)}.zip"
                title = f"{obtain.package} {obtain.version}"
                return [PypiDownload(spec.name, title, folder / name, obtain.bytes, obtain, patterns)]
            case NpmPackage():
                name = f"{obtain.package.replace('/', '+')}-{obtain.version}-{content_key(spec)}.zip"
                title = f"{obtain.package} {obtain.version}"
                return [NpmDownload(spec.name, title, folder / name, obtain.bytes, obtain, patterns)]
            case MtdataSets():
                find_mtdata(spec.name)
                size = max(1, obtain.bytes // len(obtain.datasets))
                return [
                    MtdataDownload(spec.name, one, folder / f"{one}-{FORMAT}.zip", size, one) for one in obtain.datasets
                ]
            case DebianDescriptions():
                path = folder / f"descriptions-{content_key(spec)}.zip"
                title = f"package descriptions in {len(obtain.languages)} languages"
                return [DescriptionsDownload(spec.name, title, path, obtain.bytes, obtain)]
            case DebianPackages():
                if self._apt is None:
                    temporary = tempfile.TemporaryDirectory(prefix="nmt-apt-", ignore_cleanup_errors=True)
                    lists = Path(self._stack.enter_context(temporary)) / "apt"
                    self._apt = Apt(lists, f"corpus {spec.name}").update(())
                return list(plan_packages(spec, obtain, patterns, self._apt))
        raise TypeError(f"{obtain.kind} is not fetched")


def _run(downloads: Sequence[Download], progress: Progress) -> dict[Download, Obtained | UserError]:
    """Fetch files, some at a time; an interruption ends all of them."""
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {one: pool.submit(_one, one, progress, stop) for one in downloads}
        try:
            return {one: future.result() for one, future in futures.items()}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _one(download: Download, progress: Progress, stop: threading.Event) -> Obtained | UserError:
    if stop.is_set():
        raise StoppedError
    what = f"fetching {download.title}"
    progress.say(f"{what} ({megabytes(download.bytes)} MB)")
    with progress.track(what, download.bytes, "bytes") as task:
        try:
            return download.fetch(Watch(lambda size: task.update(min(size, download.bytes)), stop))
        except UserError as error:
            return error
