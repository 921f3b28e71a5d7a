"""The cache of fetched files: the index of each corpus, and a download of one file into it."""

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
import threading
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.obtain.contents import file_sha256, known_sha256
from nmt.errors import UserError
from nmt.files import atomic_write, cache_dir

MEGABYTE = 1_000_000
ABANDONED_SECONDS = 24 * 3600
# Part of the names of files in the cache; to be raised when files are stored in another form.
FORMAT = 1


@dataclass(frozen=True)
class Obtained:
    """One file of a corpus in the cache, and the download that it was made from."""

    path: Path
    source: str  # such as `PyPI homeassistant`
    version: str
    sha256: str  # of the download
    bytes: int  # of the download
    kept: str = field(
        default="", compare=False
    )  # SHA-256 of the file in the cache; empty until all files of the corpus are there


class StoppedError(Exception):
    """Raised in the threads that download, when the person has interrupted."""


@dataclass(frozen=True)
class Watch:
    """Callback of a download: it reports progress, and raises when the download is to stop."""

    show: Callable[[int], None]  # takes the bytes downloaded by now
    stop: threading.Event

    def __call__(self, size: int) -> None:
        """Report the bytes downloaded by now. Raises StoppedError if the person has interrupted."""
        if self.stop.is_set():
            raise StoppedError
        self.show(size)


@dataclass(frozen=True)
class Download(ABC):
    """A file to be fetched into the cache."""

    corpus: str
    title: str  # package and version, for progress
    path: Path  # its place in the cache
    bytes: int  # of the download, approximately

    def fetch(self, watch: Watch) -> Obtained:
        """Fetch the file. At `path` there is the whole file or none, however this ends.

        Raises:
          UserError: no client, no registry, no such version, no room, another SHA-256.
        """
        folder = self.path.parent
        try:
            if done := self._kept():
                return done
            remove_abandoned(folder)
            self.check_room()
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder, ignore_cleanup_errors=True) as temporary:
                return self._fetch(Path(temporary), watch)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise self.no_room() from None
            raise UserError(
                f"cannot use the cache folder {folder}: {error.strerror}; set NMT_CACHE to another"
            ) from None

    def _kept(self) -> Obtained | None:
        """Return the file if an earlier fetch has completed it, though not the other files of the corpus."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return Obtained(**{**json.loads(archive.comment), "path": self.path})
        except (OSError, ValueError, TypeError, zipfile.BadZipFile):
            return None

    def keep(self, packed: Path, source: str, version: str, downloaded: tuple[str, int]) -> Obtained:
        """Move a zip archive to `path`; its comment records the download: source, version, SHA-256 and bytes."""
        obtained = Obtained(self.path, source, version, *downloaded)
        with zipfile.ZipFile(packed, "a") as archive:
            archive.comment = json.dumps({**asdict(obtained), "path": self.path.name}).encode()
        packed.replace(self.path)
        return obtained

    @abstractmethod
    def _fetch(self, temporary: Path, watch: Watch) -> Obtained:
        """Download into `temporary`, an empty folder beside `path`; check the file, and move it to `path`."""

    def check_room(self) -> None:
        """Raise UserError if there is too little disk space.

        Also called after a client has failed: with a full disk some speak of a broken connection.
        """
        if shutil.disk_usage(self.path.parent).free < 2 * self.bytes:
            raise self.no_room()

    def no_room(self) -> UserError:
        """Return the error of a full disk. For a moment the file is there twice: a client copies its download."""
        folder = self.path.parent
        return UserError(
            f"no room in {folder} to fetch corpus {self.corpus}: {megabytes(2 * self.bytes)} MB are needed, "
            f"{shutil.disk_usage(folder).free // MEGABYTE} MB are free; make room, or set NMT_CACHE to another folder"
        )

    def check_sha256(self, path: Path, pinned: str | None, wrong: str) -> str:
        """Return a file's SHA-256. Raises UserError, with the message `wrong`, if another one is pinned."""
        if pinned not in (None, found := file_sha256(path)):
            raise UserError(f"corpus {self.corpus}: {wrong} (SHA-256 {found}, not {pinned})")
        return found


def corpus_folder(spec: CorpusSpec) -> Path:
    """Return (and make) the folder of a corpus in the cache."""
    return cache_dir("corpora", spec.name)


def content_key(spec: CorpusSpec) -> str:
    """Return a hash of 12 hexadecimal digits of the `obtain` section (but sizes) and the patterns of `read`."""
    patterns = getattr(spec.read, "patterns", ())
    kept = [FORMAT, spec.obtain.model_dump(mode="json", exclude={"bytes"}), list(patterns)]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def read_index(spec: CorpusSpec) -> tuple[Obtained, ...] | None:
    """Return the fetched files of a corpus, or None if any of them is missing or damaged."""
    found = _entries(spec)
    return found if found and all(map(_is_whole, found)) else None


def remove_damaged(spec: CorpusSpec) -> list[Path]:
    """Remove the damaged files of a corpus from the cache, and return their paths."""
    damaged = [one.path for one in _entries(spec) if one.path.is_file() and not _is_whole(one)]
    for path in damaged:
        path.unlink(missing_ok=True)
    return damaged


def _entries(spec: CorpusSpec) -> tuple[Obtained, ...]:
    index = _index(spec)
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return tuple(Obtained(**{**entry, "path": index.parent / entry["path"]}) for entry in entries)
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def _is_whole(one: Obtained) -> bool:
    try:
        # Older indexes lack the hash of the file in the cache.
        return one.path.is_file() and one.kept in ("", known_sha256(one.path))
    except OSError:
        return False


def write_index(spec: CorpusSpec, files: Sequence[Obtained]) -> None:
    """Write the index of a corpus, once all its files are in the cache."""
    found = [replace(one, kept=file_sha256(one.path)) for one in files]
    entries = [{**asdict(one), "path": one.path.name} for one in found]
    with atomic_write(_index(spec)) as temporary:
        temporary.write_text(json.dumps(entries, indent=2) + "\n")


def _index(spec: CorpusSpec) -> Path:
    return corpus_folder(spec) / f"fetched-{content_key(spec)}.json"


def megabytes(size: int) -> int:
    """Return bytes as megabytes, at least one."""
    return max(1, round(size / MEGABYTE))


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of killed processes: those older than a day."""
    for left in folder.glob(".fetch-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def explain_unusable(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that names the folder of the cache."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot use the cache folder {folder}: {error.strerror}; set NMT_CACHE to another") from None
