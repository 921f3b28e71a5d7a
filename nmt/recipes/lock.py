"""The lock on a run's folder: one nmt-train at a time."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from etils import epath

from nmt.errors import UserError
from nmt.files import is_remote

_BUSY = (errno.EACCES, errno.EAGAIN)


def check_store(folder: epath.Path) -> None:
    """Check that a run's folder in an object store can be looked into.

    Raises:
      UserError: it cannot, and what to install or to look after.
    """
    if not is_remote(folder):
        return
    try:
        folder.exists()
    except ImportError as error:
        raise UserError(f"{folder} needs another package ({error}): for gs:// pip install 'nmt-moe[gcs]'") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot look into {folder}: {reason}; check the bucket and this machine's credentials"
        ) from None


@contextlib.contextmanager
def locked(folder: epath.Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold a run's folder, which is made if it is missing, until the block ends.

    The lock ends with the process, however that ends, so that a run that was killed can go on at once. An object store
    has no such locks, nor have some shared file systems: there it is for people to take care, and `warn` tells them.

    Raises:
      UserError: another process holds the folder, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = None if is_remote(folder) else os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {folder}: {error.strerror or error}") from None
    try:
        if lock is None or not _taken(lock, folder):
            warn(f"warning: {folder} cannot be locked: take care that no other nmt-train works in it")
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _taken(lock: int, folder: epath.Path) -> bool:
    """Take the lock; False: the file system has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise UserError(f"another nmt-train is working in {folder}: wait, or choose another run_dir") from None
        return False
    return True
