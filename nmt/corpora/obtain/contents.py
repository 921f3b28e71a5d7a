"""SHA-256 of files, computed once for as long as a file looks as it did: a corpus may have terabytes."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from nmt.corpora.parallel import cores
from nmt.files import atomic_write, cache_dir

# What changed this lately may change again without another time: clocks of file systems tick, some in two seconds.
_SETTLED_NS = 2_000_000_000
_TOLD_BYTES = 1_000_000_000  # less is hashed in a moment


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, which is read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; it is read if its path, size or times are new.

    Raises:
      OSError: it cannot be read.
    """
    look = _look(path)
    if (known := _known(path, look)) is not None:
        return known
    found = sha256_of(path)
    if time.time_ns() - max(look[1:]) > _SETTLED_NS:
        # A cache that cannot be written costs time only.
        with contextlib.suppress(OSError), atomic_write(_note(path)) as temporary:
            temporary.write_text(json.dumps({"path": str(path), "look": look, "sha256": found}))
    return found


def known_sha256s(paths: Sequence[Path], console: Console | None = None) -> list[str]:
    """Return the SHA-256 of files, several at once; an empty string for one that cannot be read."""
    with _told(paths, console), concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(_known_or_empty, paths))


def _known_or_empty(path: Path) -> str:
    try:
        return known_sha256(path)
    except OSError:
        return ""


def _look(path: Path) -> list[int]:
    """Return what changes with the content; the time of a file's status does even where its own is set back."""
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


@contextlib.contextmanager
def _told(paths: Sequence[Path], console: Console | None) -> Iterator[None]:
    """Say that much is being read."""
    size = 0
    for path in paths if console else ():
        with contextlib.suppress(OSError):
            look = _look(path)
            size += 0 if _known(path, look) else look[0]
    if console is None or size < _TOLD_BYTES:
        yield
        return
    message = f"hashing {size / 1e9:,.1f} GB of text, once"
    if not console.is_terminal:
        console.print(message, highlight=False)
        yield
        return
    with console.status(message):
        yield
