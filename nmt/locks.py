"""The lock of a file, held against other processes of this machine."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def file_lock(path: os.PathLike[str], *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made if it is missing, until the block ends.

    The lock ends with the process, however that ends. Some shared file systems have no locks.

    Args:
      path: the file; its folder exists.
      wait: whether to wait for a process that holds the lock.

    Yields:
      Whether the lock is held; False: the file system has none.

    Raises:
      BlockingIOError: another process holds the lock, and there is no waiting.
      OSError: the file cannot be opened for writing.
    """
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        yield _acquire(file, wait)
    finally:
        os.close(file)


def _acquire(file: int, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            raise BlockingIOError(error.errno, error.strerror) from None
        return False
    return True
