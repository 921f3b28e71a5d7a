"""From the store to packed batches: shuffled, repeated and mixed by Grain, packed, exactly resumable.

    per direction: shuffle (anew every epoch), repeat -> mix -> shuffle in windows -> slice per host -> pack -> Batch

Each step stands where it does for a reason. Without `repeat` before it, the mixture would end with its smallest
direction. The mixture is a periodic round robin, so a slice per host would starve hosts of whole directions: windows of
it are shuffled first. Only references to records go through Grain; the records are then read many at a time.
"""

import functools
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from nmt.config import DataConfig
from nmt.data.batch import Batch
from nmt.data.corpora.spec import Split
from nmt.data.mixture import probabilities
from nmt.data.packing import Example, IntArray, Packer, assemble
from nmt.data.records import TokenPairs
from nmt.data.store import RowLengths, load_stats, open_pairs
from nmt.errors import UserError
from nmt.languages import Direction

# Rows that are filled together: the more, the fuller they get.
_OPEN_ROWS = 256
# Directions of up to so many pairs are shuffled by drawing the order of a whole epoch.
_LARGEST_BLOCK = 1 << 16
_READ_AT_ONCE = 1024
_READY_BATCHES = 4


class Reference(NamedTuple):
    """Which pair: the index of a direction in the recipe, and a record of it."""

    direction: int
    record: int


class _References(grain.MapDataset):
    """The references to all records of a direction, again and again."""

    def __init__(self, direction: int, records: int):
        super().__init__()
        self._direction = direction
        self._records = records

    def __len__(self) -> int:
        return self._records

    def __getitem__(self, index: int) -> Reference:
        return Reference(self._direction, index % self._records)

    def __str__(self) -> str:
        return f"References({self._direction}, {self._records})"


class _BlockShuffle(grain.MapDataset):
    """Every block of so many elements in an order of its own.

    Grain's own shuffles compute every index alone, by walking through at least 2^16 numbers until one is in the block:
    4 us for large blocks, but 0.1 ms for 256 elements and 10 ms for two. Here the order of a block is drawn at once.
    """

    def __init__(self, parent: Any, block: int, seed: int):
        super().__init__(parent)
        self._block = block
        self._seed = seed
        # Draws from a small direction jump to and fro between the epochs that fall into one shuffle window.
        self._order = functools.lru_cache(maxsize=max(4, 4096 // block))(self._draw_order)

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        number, place = divmod(index, self._block)
        return self._parent[number * self._block + int(self._order(number)[place])]

    def _draw_order(self, number: int) -> IntArray:
        return np.random.default_rng([self._seed, number]).permutation(np.arange(self._block, dtype=np.int32))

    def __str__(self) -> str:
        return f"BlockShuffle({self._block})"


def mixed_references(
    directions: Mapping[Direction, int], data: DataConfig, seed: int, host: int = 0, hosts: int = 1
) -> Any:
    """Return a host's part of the endless mixture, a `grain.MapDataset` of `Reference`.

    Args:
      directions: training pairs by direction, in the order of the recipe; those without pairs are never drawn.
      data: temperature and shuffle window.
      seed: the recipe's seed.
      host: which host, of `hosts`; together they get the whole mixture, none the same element as another.
    """
    shares = probabilities(directions, data.temperature)
    parts = [
        _shuffled(_References(index, pairs), _derived(seed, str(direction))).repeat()
        for index, (direction, pairs) in enumerate(directions.items())
        if direction in shares
    ]
    mixed = grain.MapDataset.mix(parts, list(shares.values()))
    return _BlockShuffle(mixed, data.shuffle_window, _derived(seed, "window"))[host::hosts]


def _shuffled(references: _References, seed: int) -> Any:
    if len(references) <= _LARGEST_BLOCK:
        return _BlockShuffle(references, len(references), seed)
    return references.seed(seed).shuffle()


def _derived(seed: int, purpose: str) -> int:
    """Return a seed of 32 bits. Grain adds the epoch to it, so neighbouring seeds would share their orders."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1)[0])


def train_batches(
    store_dir: os.PathLike[str] | str,
    directions: Sequence[Direction],
    data: DataConfig,
    rows: int,
    seed: int,
    host: int = 0,
    hosts: int = 1,
) -> Any:
    """Return a host's endless iterator over training batches, a `grain.DatasetIterator` of `Batch`.

    A thread prepares a few batches ahead; `close()` ends it. `get_state()` is a small dict of integers, valid for the
    same arguments (and the same store); `set_state`, or `grain.checkpoint`, continues with exactly the next batch.

    Args:
      store_dir: the prepared store, RUN/data.
      directions: the recipe's directions, in its order: `Batch.direction` counts them from 0.
      data: row lengths, temperature and shuffle window.
      rows: rows of a batch of this host (B).
      seed: the recipe's seed.
      host: which host, of `hosts`.

    Raises:
      UserError: there is no such store, it lacks a direction, has no pairs or was made for longer rows.
    """
    store = _Store.open(store_dir, "train", directions, data)
    pairs = {direction: len(source) for direction, source in zip(directions, store.sources, strict=True)}
    references = mixed_references(pairs, data, seed, host, hosts)
    packed = _PackedBatches(references, store, rows, _derived(seed, "rows"))
    return iter(grain.experimental.ThreadPrefetchIterDataset(packed, prefetch_buffer_size=_READY_BATCHES))


def dev_batches(
    store_dir: os.PathLike[str] | str, directions: Sequence[Direction], data: DataConfig, rows: int
) -> Iterator[Batch]:
    """Yield the development pairs as batches, each pair once, always in the same order.

    Directions take turns, so the first batches have all of them. The last batch is filled with empty rows.

    Raises:
      UserError: as `train_batches`.
    """
    store = _Store.open(store_dir, "dev", directions, data)
    longest = max(map(len, store.sources), default=0)
    references = (
        Reference(index, record)
        for record in range(longest)
        for index, source in enumerate(store.sources)
        if record < len(source)
    )
    packer = Packer(_block_rows(rows), store.lengths)
    for some in iter(lambda: list(itertools.islice(references, _READ_AT_ONCE)), []):
        for example in store.read(some):
            if not packer.add(example):
                yield from store.batches(packer.rows, rows)
                packer = Packer(_block_rows(rows), store.lengths)
                packer.add(example)
    yield from store.batches(packer.rows, rows)


class _Store(NamedTuple):
    """A split of the prepared store, with the directions in the order of the recipe."""

    sources: list[TokenPairs]
    tags: list[int]
    lengths: RowLengths

    @classmethod
    def open(
        cls, store_dir: os.PathLike[str] | str, split: Split, directions: Sequence[Direction], data: DataConfig
    ) -> "_Store":
        stats = load_stats(store_dir)
        lengths = RowLengths(data.source_length, data.target_length)
        if stats.lengths.source > lengths.source or stats.lengths.target > lengths.target:
            raise UserError(
                f"{store_dir} was prepared for rows of {stats.lengths.source} and {stats.lengths.target} tokens, "
                f"not {lengths.source} and {lengths.target}; delete that folder to prepare it again"
            )
        sources = [open_pairs(store_dir, split, direction, stats) for direction in directions]
        return cls(sources, [stats.direction(direction).tag for direction in directions], lengths)

    def read(self, references: Sequence[Reference]) -> list[Example]:
        """Return the examples that references stand for."""
        places: dict[int, list[int]] = {}
        for place, reference in enumerate(references):
            places.setdefault(reference.direction, []).append(place)
        examples: dict[int, Example] = {}
        for direction, at in places.items():
            pairs = self.sources[direction].__getitems__([references[place].record for place in at])
            examples |= {place: Example(direction, pair) for place, pair in zip(at, pairs, strict=True)}
        return [examples[place] for place in range(len(references))]

    def batches(self, packed: Sequence[Sequence[Example]], rows: int) -> Iterator[Batch]:
        """Yield packed rows as batches, without batches that are empty altogether."""
        for start in range(0, len(packed), rows):
            if any(some := packed[start : start + rows]):
                yield assemble(some, self.lengths, self.tags)


def _block_rows(rows: int) -> int:
    """Return the rows that are filled together: a multiple of a batch's."""
    return rows * -(-_OPEN_ROWS // rows)


class _PackedBatches(grain.IterDataset):
    """Packs references into batches."""

    def __init__(self, references: Any, store: _Store, rows: int, seed: int):
        super().__init__(references)
        self._arguments = (references, store, rows, seed)

    def __iter__(self) -> "_PackedIterator":
        return _PackedIterator(*self._arguments)

    def __str__(self) -> str:
        return "PackedBatches"


class _PackedIterator(grain.DatasetIterator):
    """Packs one block of rows after the other.

    A block starts with the first reference that did not fit the one before, so what it holds depends on nothing but
    that reference's number. Hence the state: the block's first reference and the batches of it that were given out.
    """

    def __init__(self, references: Any, store: _Store, rows: int, seed: int):
        super().__init__()
        self._references = references
        self._store = store
        self._rows = rows
        self._seed = seed
        self._state = {"reference": 0, "batch": 0}
        self._block: list[list[Example]] = []
        self._next_reference = 0
        self._chunk_number = -1
        self._chunk: list[Example] = []

    def __next__(self) -> Batch:
        if not self._block:
            self._block, self._next_reference = self._pack(self._state["reference"])
        batch = self._state["batch"]
        rows = self._block[batch * self._rows : (batch + 1) * self._rows]
        if (batch + 1) * self._rows < len(self._block):
            self._state = {**self._state, "batch": batch + 1}
        else:
            self._state, self._block = {"reference": self._next_reference, "batch": 0}, []
        return assemble(rows, self._store.lengths, self._store.tags)

    def get_state(self) -> dict[str, int]:
        return self._state

    def set_state(self, state: dict[str, int]) -> None:
        self._state, self._block = dict(state), []

    def __str__(self) -> str:
        return "PackedIterator"

    def _pack(self, reference: int) -> tuple[list[list[Example]], int]:
        packer = Packer(_block_rows(self._rows), self._store.lengths)
        start = reference
        while packer.add(self._example(reference)):
            reference += 1
        # First-fit leaves the most room in the last rows: in their order, every block would end with a poor batch.
        order = np.random.default_rng([self._seed, start]).permutation(len(packer.rows))
        return [packer.rows[row] for row in order], reference

    def _example(self, reference: int) -> Example:
        number, place = divmod(reference, _READ_AT_ONCE)
        if number != self._chunk_number:
            wanted = range(number * _READ_AT_ONCE, (number + 1) * _READ_AT_ONCE)
            self._chunk = self._store.read([self._references[i] for i in wanted])
            self._chunk_number = number
        return self._chunk[place]
