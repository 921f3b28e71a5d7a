"""Pairs of token ids in ArrayRecord shards: the record format, its writer and its random-access reader.

A record is a header of 8 bytes, then the source's pieces, then the target's, all little-endian:

    byte 0     version of the format, 1
    byte 1     bytes of a token id: 2 (unsigned, vocabularies of up to 65536 ids) or 4 (signed)
    bytes 2-3  zero
    bytes 4-7  number of source tokens (unsigned)

Records hold pieces only: tags, begin and end are added when a batch is packed.
"""

import array
import bisect
import contextlib
import hashlib
import io
import itertools
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from nmt.errors import UserError
from nmt.files import atomic_write, cache_dir, is_remote

_FORMAT = 1
_HEADER = struct.Struct("<BBxxI")
_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<i4")}
# One record a group is what random access wants; records are too short for compression to gain anything.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
_READER_BUFFER = 4096


class TokenPair(NamedTuple):
    """The pieces of a pair: 1-D, unsigned 16-bit or signed 32-bit, read-only."""

    source: np.ndarray
    target: np.ndarray


def encode_record(source: Sequence[int], target: Sequence[int], token_bytes: int) -> bytes:
    """Return the record of a pair; `token_bytes` is 2 or 4."""
    tokens = np.array([*source, *target], _DTYPES[token_bytes])
    return _HEADER.pack(_FORMAT, token_bytes, len(source)) + tokens.tobytes()


def decode_record(record: bytes) -> TokenPair:
    """Return the pair of a record.

    Raises:
      ValueError: the record has another format.
    """
    version, token_bytes, source_tokens = _HEADER.unpack_from(record)
    if version != _FORMAT or token_bytes not in _DTYPES:
        raise ValueError(f"unknown record format {version} with {token_bytes} bytes a token")
    tokens = np.frombuffer(record, _DTYPES[token_bytes], offset=_HEADER.size)
    return TokenPair(tokens[:source_tokens], tokens[source_tokens:])


class ShardWriter:
    """Writes records to folder/00000.array_record and so on, each of at most `shard_pairs` records.

    Beside each shard, 00000.lengths.npy has the pieces of both sides of every record [N,2]: what packing needs to know
    of pairs that another host reads.
    """

    def __init__(self, folder: epath.Path, shard_pairs: int):
        """Make the folder; nothing else is written before the first record."""
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: list[int] = []  # records in every shard
        self._folder = folder
        self._shard_pairs = shard_pairs
        self._shard = contextlib.ExitStack()
        self._writer: Any = None
        self._lengths = array.array("I")  # of the records of the last shard

    def write(self, record: bytes) -> None:
        """Append a record."""
        if not self.counts or self.counts[-1] == self._shard_pairs:
            self.close()
            self._writer = self._shard.enter_context(_open_writer(_shard_path(self._folder, len(self.counts))))
            self.counts.append(0)
        self._writer.write(record)
        self._lengths.extend(_lengths_of(record))
        self.counts[-1] += 1

    def close(self) -> None:
        """Finish the last shard."""
        self._shard.close()
        if self._lengths:
            lengths = np.array(self._lengths, np.uint32).reshape(-1, 2)
            small = lengths.max() <= np.iinfo(np.uint16).max
            path = _lengths_path(self._folder, len(self.counts) - 1)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, lengths.astype(np.uint16) if small else lengths)
            self._lengths = array.array("I")


class TokenPairs:
    """Random access to the pairs of a folder of shards: a data source for Grain.

    Picklable; files are opened when they are first read from.
    """

    def __init__(self, folder: os.PathLike[str] | str, counts: Sequence[int]):
        """Take the folder and the number of records in every shard, as in stats.json."""
        self._folder = epath.Path(folder)
        self._ends = list(itertools.accumulate(counts))
        self._readers: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:
        return f"TokenPairs({str(self._folder)!r}, {len(self)} pairs)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def __getitem__(self, index: SupportsIndex) -> TokenPair:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[TokenPair]:
        """Return several pairs at once; raises as `records`."""
        return [decode_record(record) for record in self.records(list(map(int, indices)))]

    def records(self, indices: Sequence[int]) -> list[bytes]:
        """Return several records at once: ArrayRecord fetches them in parallel, as remote storage needs.

        Raises:
          IndexError: an index is not in [0, len).
          UserError: a shard is missing or damaged.
        """
        if indices and not 0 <= min(indices) <= max(indices) < len(self):
            raise IndexError(f"{min(indices)} or {max(indices)} is not in [0, {len(self)})")
        if len(self._ends) == 1:
            return self._read(0, list(indices))
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            shard = bisect.bisect_right(self._ends, index)
            wanted.setdefault(shard, []).append((index - (self._ends[shard - 1] if shard else 0), place))
        found: list[bytes] = [b""] * len(indices)
        for shard, positions in wanted.items():
            for (_, place), record in zip(positions, self._read(shard, [i for i, _ in positions]), strict=True):
                found[place] = record
        return found

    def lengths(self) -> list[np.ndarray]:
        """Return the pieces of both sides of every record [N,2], shard by shard; local files are mapped, not read.

        Raises:
          UserError: a file is missing or damaged.
        """
        return [self._lengths(shard) for shard in range(len(self._ends))]

    def _lengths(self, shard: int) -> np.ndarray:
        path = _lengths_path(self._folder, shard)
        count = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
        try:
            lengths: np.ndarray
            if is_remote(path):
                lengths = np.load(io.BytesIO(path.read_bytes()))
            else:
                lengths = np.load(os.fspath(path), mmap_mode="r")
            if lengths.shape != (count, 2):
                raise ValueError(f"{len(lengths)} records instead of {count}")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); delete the prepared data to prepare it again") from None
        return lengths

    def _read(self, shard: int, positions: list[int]) -> list[bytes]:
        path = _shard_path(self._folder, shard)
        try:
            if shard not in self._readers:
                self._readers[shard] = self._open(shard, path)
            records: list[bytes] = self._readers[shard].read(positions)
        except RuntimeError as error:
            raise UserError(f"{path} is damaged ({error}); delete the prepared data to prepare it again") from None
        return records

    def _open(self, shard: int, path: epath.Path) -> Any:
        reader = ArrayRecordReader(os.fspath(_near(path)), _READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER)
        expected = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
        # A missing or cut file is no error to ArrayRecord: it has no records.
        if (found := reader.num_records()) != expected:
            raise RuntimeError(f"{found} records instead of {expected}")
        return reader


def _near(path: epath.Path) -> epath.Path:
    """Return a shard as a file of this machine: out of an object store, it is copied into the cache."""
    if not is_remote(path):
        return path
    try:
        found = path.stat()
    except OSError as error:
        raise RuntimeError(str(error)) from None
    identity = hashlib.sha256(f"{path} {found.length} {found.mtime}".encode()).hexdigest()[:16]
    copy = epath.Path(cache_dir("shards", identity)) / path.name
    if not copy.exists():
        with atomic_write(copy) as temporary:
            path.copy(temporary)
    return copy


def _lengths_of(record: bytes) -> tuple[int, int]:
    _, token_bytes, source = _HEADER.unpack_from(record)
    return source, (len(record) - _HEADER.size) // token_bytes - source


def tokens_of(records: Sequence[bytes], source_lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pieces of all sources, one after the other, and those of all targets.

    Args:
      records: records of one store, whose token ids have one size.
      source_lengths: the pieces of each source [N].

    Raises:
      ValueError: the records have another format.
    """
    if not records:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    heads = {record[:2] for record in records}
    version, token_bytes = records[0][:2]
    if len(heads) > 1 or version != _FORMAT or token_bytes not in _DTYPES:
        raise ValueError(f"unknown record formats {sorted(heads)}")
    words = np.frombuffer(b"".join(records), _DTYPES[token_bytes])
    header = _HEADER.size // token_bytes
    sizes = np.fromiter(map(len, records), np.int64, len(records)) // token_bytes
    parts = np.stack([np.full(len(records), header), source_lengths, sizes - header - source_lengths], axis=1)
    part = np.repeat(np.tile([0, 1, 2], len(records)), parts.reshape(-1))
    return words[part == 1], words[part == 2]


def _lengths_path(folder: epath.Path, shard: int) -> epath.Path:
    return folder / f"{shard:05d}.lengths.npy"


def _shard_path(folder: epath.Path, shard: int) -> epath.Path:
    return folder / f"{shard:05d}.array_record"


@contextlib.contextmanager
def _open_writer(path: epath.Path) -> Iterator[Any]:
    """Yield a writer; ArrayRecord reads from object stores but writes only local files, which are copied there."""
    with contextlib.ExitStack() as stack:
        local = path
        if is_remote(path):
            local = epath.Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        with contextlib.closing(ArrayRecordWriter(os.fspath(local), _WRITER_OPTIONS)) as writer:
            yield writer
        if local != path:
            local.copy(path)
