"""SHA-256 of files, remembered by path, size and times, since a corpus may have terabytes."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from nmt.corpora.parallel import available_cores
from nmt.files import atomic_write, cache_dir
from nmt.progress import SILENT, Reporter

# A file changed more recently than this may change again and keep its time: some file systems count in two seconds.
_SETTLED_NS = 2_000_000_000
_TOLD_BYTES = 1_000_000_000  # from so many on, hashing is reported


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, which is read only if its path, size or times are new.

    Raises:
      OSError: it cannot be read.
    """
    look = _look(path)
    if (known := _known(path, look)) is not None:
        return known
    found = file_sha256(path)
    if time.time_ns() - max(look[1:]) > _SETTLED_NS:
        # A cache that cannot be written costs time only.
        with contextlib.suppress(OSError), atomic_write(_note(path)) as temporary:
            temporary.write_text(json.dumps({"path": str(path), "look": look, "sha256": found}))
    return found


def known_sha256s(paths: Sequence[Path], progress: Reporter = SILENT) -> list[str]:
    """Return the SHA-256 of files, several at once; an empty string for one that cannot be read.

    Args:
      paths: the files.
      progress: shows the hashing of a gigabyte or more.
    """
    sizes = [_unknown_bytes(path) for path in paths]
    if (total := sum(sizes)) < _TOLD_BYTES:
        progress = SILENT
    progress.say(f"hashing {total / 1e9:,.1f} GB of text, once")
    found = []
    with (
        progress.track("hashing", total, "bytes") as task,
        concurrent.futures.ThreadPoolExecutor(available_cores()) as pool,
    ):
        for done, digest in zip(itertools.accumulate(sizes), pool.map(_known_or_empty, paths), strict=True):
            found.append(digest)
            task.update(done)
    return found


def _unknown_bytes(path: Path) -> int:
    """Return the bytes of a file that have to be read: 0 if its hash is known, or if it cannot be read."""
    try:
        look = _look(path)
    except OSError:
        return 0
    return 0 if _known(path, look) else look[0]


def _known_or_empty(path: Path) -> str:
    try:
        return known_sha256(path)
    except OSError:
        return ""


def _look(path: Path) -> list[int]:
    """Return size, time of modification and time of status change (ns); the last cannot be set back."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _known(path: Path, look: list[int]) -> str | None:
    try:
        note = json.loads(_note(path).read_text())
        return str(note["sha256"]) if note["look"] == look else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _note(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]
    return cache_dir("hashes") / f"{name}.json"
