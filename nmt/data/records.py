"""Pairs of token ids in flat files that are mapped into memory: the layout, the writer and the reader.

A shard of U pairs is two little-endian NumPy arrays, which `numpy.load(..., mmap_mode="r")` opens as well:

    00000.tokens.npy   pair after pair, the ids of the source, those of the target and a check word: unsigned 16-bit
                       (vocabularies of up to 65536 ids) or signed 32-bit
    00000.bounds.npy   [2U+1] index of the first token of each source and each target, and the end of the last pair:
                       unsigned 32-bit

The words of a pair, its ids and the check word, sum up to 0x5A5A modulo the range of a word. Pairs consist of pieces;
tags, begin and end are added when a batch is packed.
"""

import contextlib
import hashlib
import itertools
import operator
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self, SupportsIndex

import numpy as np
from etils import epath

from nmt.errors import UserError
from nmt.files import atomic_write, cache_dir, is_remote

Ints = np.ndarray[Any, np.dtype[np.int64]]

_DTYPES: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<i4")}
_BOUND = np.dtype("<u4")
# Not 0, because a damaged disk mostly returns zeros.
_CHECK = 0x5A5A
_MOST_WORDS = np.iinfo(_BOUND).max


class TokenPair(NamedTuple):
    """The pieces of a pair [S] and [T], unsigned 16-bit or signed 32-bit, read-only."""

    source: np.ndarray
    target: np.ndarray


class Located(NamedTuple):
    """The places of U pairs: number of the shard [U], and in it the begin of source and target, and the end [U,3]."""

    shard: np.ndarray
    bounds: Ints

    @property
    def lengths(self) -> Ints:
        """The number of pieces of source and target [U,2]."""
        return np.diff(self.bounds, axis=1) - np.array([0, 1])

    def select(self, places: Any) -> "Located":
        """Return the pairs at some places: indices, a mask or a slice."""
        return Located(self.shard[places], self.bounds[places])


def serialise_pairs(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], token_bytes: int
) -> tuple[np.ndarray, Ints]:
    """Return the words of U pairs as they are stored, and their bounds [2U+1].

    Args:
      sources: ids of the U sources.
      targets: ids of the U targets.
      token_bytes: bytes of a word, 2 or 4.

    Raises:
      OverflowError: an id needs more bytes.
    """
    sides = [*itertools.chain.from_iterable(zip(sources, targets, strict=True))]
    lengths = np.fromiter(map(len, sides), np.int64, len(sides))
    ids = np.fromiter(itertools.chain.from_iterable(sides), np.int64, int(lengths.sum()))
    dtype = _DTYPES[token_bytes]
    if len(ids) and not 0 <= ids.min() <= ids.max() <= np.iinfo(dtype).max:
        raise OverflowError(f"token ids from {ids.min()} to {ids.max()} do not fit {token_bytes} bytes")
    lengths[1::2] += 1
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    words = np.zeros(bounds[-1], dtype)
    is_id = np.ones(len(words), bool)
    is_id[bounds[2::2] - 1] = False
    words[is_id] = ids
    words[bounds[2::2] - 1] = np.array(_CHECK, dtype) - _sums(words, bounds[:-1:2])
    return words, bounds


class ShardWriter:
    """Writes pairs to folder/00000.tokens.npy and so on, each shard of at most `shard_pairs` pairs and 2^32 words."""

    def __init__(self, folder: epath.Path, shard_pairs: int, token_bytes: int):
        """Make the folder; nothing else is written before the first pair. A token id takes 2 or 4 bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: list[int] = []  # pairs in every shard
        self._folder = folder
        self._shard_pairs = shard_pairs
        self._token_bytes = token_bytes
        self._shard = contextlib.ExitStack()
        self._arrays: tuple[_GrowingArray, _GrowingArray] | None = None

    def write(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        """Append pairs, which is fast for thousands at a time; raises as `serialise_pairs`."""
        begun = 0
        while begun < len(sources):
            room = self._shard_pairs - self.counts[-1] if self._arrays else self._shard_pairs
            end = begun + room
            words, bounds = serialise_pairs(sources[begun:end], targets[begun:end], self._token_bytes)
            if room and (not self._arrays or len(self._arrays[0]) + len(words) <= _MOST_WORDS):
                self._append(words, bounds)
                begun = end
            else:
                self.close()

    def close(self) -> None:
        """Finish the last shard."""
        self._shard.close()
        self._arrays = None

    def _append(self, words: np.ndarray, bounds: Ints) -> None:
        if not self._arrays:
            paths, dtypes = _paths(self._folder, len(self.counts)), (_DTYPES[self._token_bytes], _BOUND)
            files = [self._shard.enter_context(_open_for_writing(path)) for path in paths]
            tokens, ends = (_GrowingArray(*both) for both in zip(files, dtypes, strict=True))
            for array in (tokens, ends):
                self._shard.callback(array.finish)
            ends.append(np.zeros(1, np.int64))
            self._arrays = tokens, ends
            self.counts.append(0)
        tokens, ends = self._arrays
        ends.append(bounds[1:] + len(tokens))
        tokens.append(words)
        self.counts[-1] += len(bounds) // 2


class TokenPairs:
    """Random access to the pairs of any number of shards, which are numbered on from shard to shard.

    Picklable; a file is opened when it is first read from.
    """

    def __init__(self, folder: os.PathLike[str] | str, counts: Sequence[int]):
        """Take the folder and the number of pairs in every shard, as in stats.json."""
        self._set([_paths(epath.Path(folder), shard) for shard in range(len(counts))], list(counts))

    @classmethod
    def joined(cls, parts: Sequence["TokenPairs"]) -> Self:
        """Return all pairs of several folders, in this order."""
        whole = cls.__new__(cls)
        whole._set([paths for part in parts for paths in part._paths], [n for part in parts for n in part._counts])
        return whole

    def _set(self, paths: list[tuple[epath.Path, epath.Path]], counts: list[int]) -> None:
        self._paths, self._counts = paths, counts
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._shards: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def files(self) -> int:
        """The number of files; each stays open once it was read from."""
        return 2 * len(self._paths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __repr__(self) -> str:
        return f"TokenPairs({', '.join(dict.fromkeys(str(path.parent) for path, _ in self._paths))}; {len(self)} pairs)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}

    def __getitem__(self, index: SupportsIndex) -> TokenPair:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[TokenPair]:
        """Return several pairs at once; raises as `locate` and `words`."""
        return self.read(self.locate(np.array([operator.index(index) for index in indices], np.int64)))

    def read(self, located: Located) -> list[TokenPair]:
        """Read located pairs; raises as `words`."""
        words, first = self.words(located)
        words.flags.writeable = False
        ends = (first[:, None] + np.cumsum(located.lengths, axis=1)).tolist()
        return [
            TokenPair(words[begin:middle], words[middle:end])
            for begin, (middle, end) in zip(first.tolist(), ends, strict=True)
        ]

    def locate(self, indices: Ints) -> Located:
        """Look up the places of pairs, and so their lengths, by their numbers [U].

        Raises:
          IndexError: a number is not in [0, len).
          UserError: a shard is missing or damaged.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"{indices.min()} or {indices.max()} is not in [0, {len(self)})")
        shard = np.searchsorted(self._ends, indices, side="right").astype(np.uint32)
        inside = indices - (self._ends - self._counts)[shard]
        order, parts = _sort_by_shard(shard)
        places = (2 * inside[order][:, None] + np.arange(3)).reshape(-1)
        found, most = np.empty(len(places), _BOUND), np.empty(len(indices), np.int64)
        for number, part in parts:
            tokens, bounds = self._shard(number)
            here = slice(3 * part.start, 3 * part.stop)
            bounds.take(places[here], out=found[here], mode="clip")
            most[part] = len(tokens)
        sorted_bounds = found.reshape(-1, 3).astype(np.int64)
        source, target, end = sorted_bounds.T
        if not (good := (source <= target) & (target < end) & (end <= most)).all():
            raise self.damaged(shard[order][~good][0], 1, "the places of its pairs make no sense")
        bounds = np.empty_like(sorted_bounds)
        bounds[order] = sorted_bounds
        return Located(shard, bounds)

    def words(self, located: Located) -> tuple[np.ndarray, Ints]:
        """Read pairs: return the words of all, and the index of the first word of each pair [U].

        A pair has its source, its target and its check word, in this order; the pairs come in any order.

        Raises:
          UserError: a shard is missing or damaged.
        """
        order, parts = _sort_by_shard(located.shard)
        bounds = located.bounds[order]
        sizes = bounds[:, 2] - bounds[:, 0]
        first = np.cumsum(sizes) - sizes
        places = np.repeat(bounds[:, 0] - first, sizes) + np.arange(sizes.sum())
        words = np.zeros(len(places), self._dtype(parts))
        ends = np.append(first, len(places)).tolist()
        for number, part in parts:
            here = slice(ends[part.start], ends[part.stop])
            self._shard(number)[0].take(places[here], out=words[here], mode="clip")
        if len(words) and not (good := _sums(words, first) == np.array(_CHECK, words.dtype)).all():
            raise self.damaged(located.shard[order][~good][0], 0, "tokens are not those that were written")
        begins = np.empty_like(first)
        begins[order] = first
        return words, begins

    def _dtype(self, parts: list[tuple[int, slice]]) -> np.dtype[Any]:
        return self._shard(parts[0][0])[0].dtype if parts else _DTYPES[2]

    def _shard(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Map the tokens and the bounds of a shard into memory."""
        if shard not in self._shards:
            tokens, bounds = (_mapped(path) for path in self._paths[shard])
            if tokens.dtype not in _DTYPES.values() or tokens.ndim != 1:
                raise self.damaged(shard, 0, f"unknown ids {tokens.dtype}")
            if bounds.dtype != _BOUND or bounds.shape != (2 * self._counts[shard] + 1,):
                raise self.damaged(shard, 1, f"{len(bounds) // 2} pairs instead of {self._counts[shard]}")
            if bounds[-1] != len(tokens):
                raise self.damaged(shard, 0, f"{len(tokens)} tokens instead of {bounds[-1]}")
            self._shards[shard] = tokens, bounds
        return self._shards[shard]

    def damaged(self, shard: int, file: int, reason: str) -> UserError:
        """Return the error for a damaged file of a shard (0: tokens, 1: bounds)."""
        return _damaged(self._paths[int(shard)][file], reason)


class _GrowingArray:
    """A one-dimensional .npy file that grows while it is written."""

    def __init__(self, file: Any, dtype: np.dtype[Any]):
        self._file, self._dtype, self._count = file, dtype, 0
        self._write_header()

    def __len__(self) -> int:
        return self._count

    def append(self, values: np.ndarray) -> None:
        self._file.write(values.astype(self._dtype, copy=False).tobytes())
        self._count += len(values)

    def finish(self) -> None:
        """Write the header again, now with the final length; it has room for any."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _sums(words: np.ndarray, first: Ints) -> np.ndarray:
    """Return the sum of the words of each pair modulo the range of a word [U]; `first` has their first words [U]."""
    return np.add.reduceat(words, first, dtype=words.dtype) if len(first) else words


def _sort_by_shard(shard: np.ndarray) -> tuple[Ints, list[tuple[int, slice]]]:
    """Return the indices of pairs sorted by shard [U], and for every shard in use its slice of them."""
    narrow = shard.astype(np.uint16) if len(shard) and shard.max() < 1 << 16 else shard  # 16 bits are sorted faster
    order = np.argsort(narrow, kind="stable")
    cuts = np.flatnonzero(np.diff(narrow[order], prepend=-1, append=-1)).tolist()
    return order, [(int(shard[order[a]]), slice(a, b)) for a, b in itertools.pairwise(cuts)]


def _mapped(path: epath.Path) -> np.ndarray:
    try:
        return np.asarray(np.lib.format.open_memmap(os.fspath(_near(path)), mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: epath.Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}); delete the prepared data to prepare it again")


def _near(path: epath.Path) -> epath.Path:
    """Return a local path of a shard's file; one in an object store is first copied into the cache."""
    if not is_remote(path):
        return path
    found = path.stat()
    identity = hashlib.sha256(f"{path} {found.length} {found.mtime}".encode()).hexdigest()[:16]
    copy = epath.Path(cache_dir("shards", identity)) / path.name
    if not copy.exists():
        with atomic_write(copy) as temporary:
            path.copy(temporary)
    return copy


def _paths(folder: epath.Path, shard: int) -> tuple[epath.Path, epath.Path]:
    """Return the paths of a shard's files: tokens and bounds."""
    return folder / f"{shard:05d}.tokens.npy", folder / f"{shard:05d}.bounds.npy"


@contextlib.contextmanager
def _open_for_writing(path: epath.Path) -> Iterator[Any]:
    """Yield a seekable file; for an object store, which has none, a local one that is copied there at the end."""
    with contextlib.ExitStack() as stack:
        local = path
        if is_remote(path):
            local = epath.Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        with local.open("wb") as file:
            yield file
        if local != path:
            local.copy(path)
