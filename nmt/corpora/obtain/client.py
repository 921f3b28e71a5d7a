"""Running a package client (pip, npm, apt-get, mtdata) as a process that is polled and always ended."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.2
LONGEST_REASON = 200


def run_client(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    poll: Callable[[], None] = lambda: None,
    output: IO[bytes] | None = None,
) -> tuple[int, str, str]:
    """Run a client to its end.

    Args:
      command: program and arguments.
      environment: variables set besides those of this process.
      folder: its working directory; None: ours.
      poll: called every `POLL_SECONDS`; an exception that it raises ends the client.
      output: file that takes its standard output, which is then not returned.

    Returns:
      Exit status, standard output, standard error.
    """
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with _ended(process):
        while True:
            try:
                said, messages = process.communicate(timeout=POLL_SECONDS)
                return process.returncode, said or "", messages
            except subprocess.TimeoutExpired:
                poll()


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End the process and its children when the block is left, if they still run."""
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)
            process.kill()
            process.communicate()


def largest_file_bytes(folder: Path) -> int:
    """Return the bytes of the largest file below a folder, which measures a download while its client makes copies."""
    return max(_sizes(folder), default=0)


def all_file_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.stat(os.path.join(where, name)).st_size
