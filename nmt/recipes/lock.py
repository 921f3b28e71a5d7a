"""The lock on a run's folder: one nmt-train at a time."""

import contextlib
from collections.abc import Callable, Iterator

from etils import epath

from nmt.errors import UserError
from nmt.files import is_remote, store_problem
from nmt.locks import file_lock

_UNLOCKED = "warning: {} cannot be locked: take care that no other nmt-train works in it"


@contextlib.contextmanager
def locked(folder: epath.Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold a run's folder, which is made if it is missing, until the block ends.

    The lock ends with the process, however that ends, so that a run that was killed can go on at once. An object store
    has no such locks, nor have some shared file systems: there it is for people to take care, and `warn` tells them.

    Raises:
      UserError: another process holds the folder, or it cannot be written to.
    """
    if is_remote(folder):
        _check_writable(folder)
        warn(_UNLOCKED.format(folder))
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(file_lock(folder / ".lock", wait=False))
        except BlockingIOError:
            raise UserError(f"another nmt-train is working in {folder}: wait, or choose another run_dir") from None
        except OSError as error:
            raise UserError(f"cannot write to the run's folder {folder}: {error.strerror or error}") from None
        if not held:
            warn(_UNLOCKED.format(folder))
        yield


def _check_writable(folder: epath.Path) -> None:
    """Write a small file into a folder of an object store, the only way to learn whether that is allowed."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:
        raise store_problem("cannot write to the run's folder", folder, error) from None
