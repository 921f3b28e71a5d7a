"""Batches prepared ahead by a thread: the only use of experimental ground of Grain."""

from importlib.metadata import version
from typing import Any

import grain

from nmt.errors import UserError


def prefetch(dataset: Any, batches: int) -> Any:
    """Return an iterator over a `grain.IterDataset` that keeps so many batches ready; `close()` ends its thread.

    Raises:
      UserError: the Grain that is installed cannot do it.
    """
    try:
        kind = grain.experimental.ThreadPrefetchIterDataset
    except AttributeError:
        raise UserError(
            f"grain {version('grain')} has no grain.experimental.ThreadPrefetchIterDataset, by which nmt prepares "
            "batches ahead: install a tested version (pip install -c constraints.txt grain)"
        ) from None
    return iter(kind(dataset, prefetch_buffer_size=batches))
