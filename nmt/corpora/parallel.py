"""A parallel map over processes that keeps the order of its items."""

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from nmt.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# So many items are done before processes are started, which takes a second.
_ALONE = 8
_AHEAD = 2  # items being worked on or waiting, for each process
_worker: Callable[[Any], Any]


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    make: Callable[..., Callable[[_Item], _Result]], arguments: tuple[Any, ...], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """Yield `make(*arguments)(item)` for every item, in order, whatever the number of processes.

    Args:
      make: top-level function or class, which new processes can import; called once in each.
      arguments: picklable.
      items: read as needed, at most two ahead for each process.
      workers: processes; with 1 everything is done in this process, as the first few items are in any case.

    Raises:
      UserError: a process was killed.
    """
    remaining = iter(items)
    work = make(*arguments)
    for item in itertools.islice(remaining, _ALONE if workers > 1 else None):
        yield work(item)
    try:
        first = next(remaining)
    except StopIteration:
        return
    # Forking a process with threads, such as JAX's, can deadlock.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (make, arguments))
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in itertools.chain([first], remaining):
            waiting.append(pool.submit(_run, item))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError("a process that cleans text was killed, perhaps for want of memory; start again") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _worker
    # Ctrl-C reaches the parent too, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = make(*arguments)


def _run(item: Any) -> Any:
    return _worker(item)


def _end_with_parent() -> None:
    """End this process when its parent is killed, or it would wait for work for ever."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
