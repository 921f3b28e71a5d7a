"""Records and text that are collected on disk: buffers in memory, appended to files when they are full."""

import errno
import itertools
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nmt.errors import UserError

BUFFER_BYTES = 64 << 20
BUCKETS = 1024
_COPIED = 1 << 20
MEGABYTE = 1_000_000


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the OSError of a full disk into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free // MEGABYTE
        raise UserError(
            f"no room in {folder} for cleaned text ({free} MB are free); make room, or set NMT_CACHE to another folder"
        ) from None


class Appender:
    """Appends to many files, none of which stays open.

    Args:
      folder: folder of the files; it must exist.
      limit: size of the buffers in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._buffers: dict[str, bytearray] = defaultdict(bytearray)
        self._bytes = 0

    def append(self, parts: Mapping[str, bytearray]) -> None:
        """Append bytes to files, by their names."""
        for name, part in parts.items():
            self._buffers[name] += part
            self._bytes += len(part)
        if self._bytes > self._limit:
            self.flush()

    def flush(self) -> None:
        """Write the buffers to the files."""
        for name, buffer in self._buffers.items():
            with (self._folder / name).open("ab") as file:
                file.write(buffer)
        self._buffers.clear()
        self._bytes = 0


class Spill:
    """Records that are collected, then read bucket by bucket; records with the same value of a field share a bucket.

    Within a bucket records keep their order. Few records stay in memory, in one bucket. Many are divided among 1,024
    files by the highest bits of the field, which is a hash, so a bucket has about a thousandth of them.

    Args:
      folder: folder of the files; it must exist.
      kind: dtype of the records.
      field: name of the field, which is uint64.
      limit: size of the buffer in bytes.
    """

    def __init__(self, folder: Path, kind: np.dtype[Any], field: str, limit: int) -> None:
        self._folder, self._kind, self._field, self._limit = folder, kind, field, limit
        self._parts: list[np.ndarray] = []
        self._bytes = 0
        self._spilt = False

    def append(self, records: np.ndarray) -> None:
        """Append records [K] of the dtype."""
        self._parts.append(records)
        self._bytes += records.nbytes
        if self._bytes > self._limit:
            self._flush()

    def buckets(self) -> Iterator[np.ndarray]:
        """Yield the buckets, each an array of records. May be called again, unless records were appended in between."""
        if not self._spilt:
            yield self._concatenate_parts()
            return
        if self._parts:
            self._flush()
        for path in sorted(self._folder.iterdir()):
            yield np.fromfile(path, self._kind)

    def _concatenate_parts(self) -> np.ndarray:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, self._kind)

    def _flush(self) -> None:
        records = self._concatenate_parts()
        bucket = (records[self._field] // np.uint64((1 << 64) // BUCKETS)).astype(np.int16)
        order = np.argsort(bucket, kind="stable")
        records, bounds = records[order], np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        for number, (low, high) in enumerate(itertools.pairwise(bounds)):
            if low < high:
                with (self._folder / f"{number:04}").open("ab") as file:
                    file.write(records[low:high].tobytes())
        self._parts, self._bytes, self._spilt = [], 0, True


def allocate_zeros(path: Path, count: int) -> np.ndarray:
    """Return a new file of `count` zeros as a writable array [count] of uint8.

    All bytes are allocated: writing to a hole of a file on a full disk would kill the process instead of raising.
    """
    with path.open("wb") as file:
        for start in range(0, count, _COPIED):
            file.write(bytes(min(_COPIED, count - start)))
    return np.memmap(path, np.uint8, "r+") if count else np.zeros(0, np.uint8)
