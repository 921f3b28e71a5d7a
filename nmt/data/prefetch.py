"""Batches prepared ahead by a thread: the only use of an experimental part of Grain."""

from importlib.metadata import version
from typing import Any

import grain

from nmt.errors import UserError


def prefetch(dataset: Any, batches: int) -> Any:
    """Return an iterator over a `grain.IterDataset` whose thread keeps `batches` batches ready; `close()` ends it.

    Raises:
      UserError: the installed version of Grain lacks this iterator.
    """
    try:
        kind = grain.experimental.ThreadPrefetchIterDataset
    except AttributeError:
        raise UserError(
            f"grain {version('grain')} has no grain.experimental.ThreadPrefetchIterDataset, by which nmt prepares "
            "batches ahead: install a tested version (pip install -c constraints.txt grain)"
        ) from None
    return iter(kind(dataset, prefetch_buffer_size=batches))
