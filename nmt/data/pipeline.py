"""Packed batches from the store: mixed, shuffled, exactly resumable, and the same on any number of hosts.

    windows of the global order -> packed blocks of rows -> batches -> the rows of a host

The global order (nmt/data/order.py) and packing need only the place and the length of each example. So every host walks
through all examples, and reads the pairs of its own rows alone. The batches of several hosts are slices of the batch
that one host would have, and the state of the iterator is the same on all of them.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import grain
import numpy as np

from nmt.config import DataConfig
from nmt.data.augment import Augmenter
from nmt.data.batch import Batch
from nmt.data.denoising import Denoiser
from nmt.data.mixture import Mixture, denoising_directions
from nmt.data.order import DrawnExamples, derive_seed, draw_window
from nmt.data.packing import fit_rows
from nmt.data.prefetch import prefetch
from nmt.data.streams import LocatedExamples, Streams, open_streams
from nmt.data.vocab import BACK_TRANSLATED, MASK
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.sharding.hosts import ALL_ROWS, HostShard

# Rows that are filled together: more rows get fuller.
_OPEN_ROWS = 256
_READY_BATCHES = 4

_NONE = np.zeros(0, np.int32)

State = dict[str, Any]


def train_batches(
    store_dir: os.PathLike[str] | str,
    directions: Sequence[Direction],
    data: DataConfig,
    rows: int,
    seed: int,
    shard: HostShard = ALL_ROWS,
    vocabularies: Vocabularies | None = None,
) -> Any:
    """Return the endless iterator over the training batches of a host, a `grain.DatasetIterator` of `Batch`.

    A thread prepares a few batches ahead; `close()` ends it. `get_state()` returns a small dict of integers, the same
    on all hosts and valid for any number of them, if the store and the other arguments are the same. After `set_state`,
    or with `grain.checkpoint`, the iterator continues with exactly the next batch.

    Args:
      store_dir: the prepared store, RUN/data.
      directions: the recipe's directions, in its order; `Batch.direction` counts them from 0, then the denoising
        languages.
      data: row lengths, mixture and shuffle window.
      rows: rows of a batch of all hosts (B).
      seed: the recipe's seed.
      shard: the rows of every batch that this host gets.
      vocabularies: vocabularies of the run; needed for denoising and for augmentation, with which every host reads
        every pair.

    Raises:
      UserError: there is no such store; it lacks a direction, has no pairs or was made for longer rows; the mixture
        does not fit the directions; or `rows` is no multiple of the hosts.
    """
    if rows % shard.hosts:
        raise UserError(
            f"a batch of {rows} rows cannot be shared by {shard.hosts} hosts: change train.tokens_per_batch"
        )
    augmenter = None
    if data.augment.enabled:
        if vocabularies is None:
            raise ValueError("augmentation needs the vocabularies")
        augmenter = Augmenter(vocabularies, data.augment, derive_seed(seed, "augment"))
    streams = open_streams(store_dir, "train", directions, data, augmenter)
    if texts := denoising_directions(data):
        if vocabularies is None:
            raise ValueError("denoising needs the vocabularies")
        first, mask = len(streams.sizes) - len(texts), vocabularies.source.symbol(MASK)
        streams = replace(streams, denoiser=Denoiser(first, mask, data.denoise, derive_seed(seed, "denoise")))
    made = streams.prefixes.direction[len(directions) : len(streams.sizes) - len(texts)]
    order = GlobalOrder(directions, streams.sizes, data, seed, made)
    packed = _PackedBatches(order, streams, rows, shard)
    return prefetch(packed, _READY_BATCHES)


def enter_stage(state: State, stage: int, step: int) -> State:
    """Return an iterator's state that goes on with another stage of the curriculum, entered after a step.

    The block of rows that is under way (256 rows, or one batch if that is more) is given out first, so that no example
    is lost.
    """
    return {**state, "next_stage": stage, "began": step}


def dev_batches(
    store_dir: os.PathLike[str] | str, directions: Sequence[Direction], data: DataConfig, rows: int
) -> Iterator[Batch]:
    """Yield the development pairs as batches, each pair once, always in the same order.

    Directions take turns, so the first batches have all of them. The last batch is filled with empty rows.

    Raises:
      UserError: as `train_batches`.
    """
    streams = open_streams(store_dir, "dev", directions, data)
    stream = np.repeat(np.arange(len(streams.sizes)), streams.sizes)
    record = np.concatenate([np.arange(size) for size in streams.sizes])
    examples = DrawnExamples(stream, record, record).select(np.lexsort((stream, record)))
    block, begun = _block_rows(rows), 0
    while begun < len(stream):
        some = streams.find(examples.select(slice(begun, begun + _most_examples(block, streams))))
        used, row = fit_rows(some.lengths, block, streams.limits)
        begun += used
        filled = int(row.max()) + 1
        # First fit leaves the fullest rows first; shuffled, or the first batches would have the longest pairs.
        row = np.random.default_rng(used).permutation(filled)[row]
        batches = -(-filled // rows)
        packed = streams.batch(row, some.select(slice(used)), batches * rows)
        for number in range(batches):
            yield _rows(packed, number * rows, rows)


class Position(NamedTuple):
    """A position in the global order."""

    window: int  # number of the window
    offset: int  # examples of the window that are used
    drawn_at: int  # step at which the window was drawn; it decides the temperature
    stage: int  # stage of the curriculum, from 0
    counts: tuple[int, ...]  # [Z] examples of every stream before the window


class GlobalOrder:
    """The endless order of examples of all hosts, walked from a `Position`.

    Args:
      directions: the recipe's directions; they are the first L streams.
      sizes: training pairs of every stream [Z]: directions, back-translated pairs, denoising.
      data: mixture and shuffle window.
      seed: the recipe's seed.
      made: index of the direction of every stream of back-translated pairs.
    """

    def __init__(
        self, directions: Sequence[Direction], sizes: np.ndarray, data: DataConfig, seed: int, made: np.ndarray = _NONE
    ):
        pairs = sizes[: len(directions)].copy()
        last = len(directions) + len(made)
        np.add.at(pairs, made, sizes[len(directions) : last])
        self._mixture = Mixture(dict(zip(directions, pairs.tolist(), strict=True)), data, sizes[last:].tolist())
        self._made, self._made_share = made, data.mixture.back_translated or 0.0
        self._sizes = np.maximum(sizes, 1)
        names = [*map(str, directions), *(f"{directions[number]}{BACK_TRANSLATED}" for number in made)]
        names += map(str, denoising_directions(data))
        self._keys = np.array([derive_seed(seed, name) << 32 for name in names], np.uint64)
        self._size = data.shuffle_window
        self._seed = derive_seed(seed, "window")
        self._last: tuple[Position, DrawnExamples] | None = None

    @property
    def stages(self) -> int:
        """The number of stages of the curriculum, at least 1."""
        return len(self._mixture.stages)

    @property
    def start(self) -> Position:
        """The position before the first example."""
        return Position(0, 0, 0, 0, (0,) * len(self._sizes))

    def window(self, position: Position) -> DrawnExamples:
        """Return the window that a position is in."""
        begin = position._replace(offset=0)
        if self._last is None or self._last[0] != begin:
            shares = self._split(self._mixture.all_shares(begin.drawn_at, begin.stage))
            counts = np.array(begin.counts, np.int64)
            seed = [self._seed, begin.window]
            self._last = begin, draw_window(shares, counts, self._sizes, self._keys, self._size, seed)
        return self._last[1]

    def _split(self, shares: np.ndarray) -> np.ndarray:
        """Return the shares of all streams [Z] from those of directions and denoising languages, without `made`."""
        made = self._made_share * shares[self._made]
        genuine = shares.copy()
        genuine[self._made] -= made
        directions = len(self._mixture.directions)
        return np.concatenate([genuine[:directions], made, genuine[directions:]])

    def next_window(self, position: Position, step: int, stage: int) -> Position:
        """Return the beginning of the next window; the rest of this one is skipped."""
        used = np.bincount(self.window(position).stream[: position.offset], minlength=len(position.counts))
        counts = tuple((used + position.counts).tolist())
        return Position(position.window + 1, 0, step, stage, counts)

    def take(self, position: Position, count: int, step: int) -> tuple[list[tuple[Position, int]], DrawnExamples]:
        """Return the next `count` examples, and the position and number of examples in each window they come from."""
        parts, taken = [], []
        while count:
            if position.offset == self._size:
                position = self.next_window(position, step, position.stage)
            here = min(count, self._size - position.offset)
            taken.append(self.window(position).select(slice(position.offset, position.offset + here)))
            parts.append((position, here))
            position, count = position._replace(offset=position.offset + here), count - here
        return parts, DrawnExamples(*(np.concatenate(columns) for columns in zip(*taken, strict=True)))


def _rows(batch: Batch, first: int, count: int) -> Batch:
    """Return `count` rows of a batch from row `first` on, without a copy."""
    return Batch(*(getattr(batch, field.name)[first : first + count] for field in fields(batch)))


def _block_rows(rows: int) -> int:
    """Return the number of rows that are filled together: the smallest multiple of `rows` that is at least 256."""
    return rows * -(-_OPEN_ROWS // rows)


def _most_examples(rows: int, streams: Streams) -> int:
    """Return an upper bound of the number of examples in so many rows."""
    least = streams.prefixes.extras.min(axis=0)
    return rows * int(min(np.array(streams.limits) // least))


class _PackedBatches(grain.IterDataset):
    """Packs the global order into batches."""

    def __init__(self, order: GlobalOrder, streams: Streams, rows: int, shard: HostShard):
        super().__init__()
        self._arguments = (order, streams, rows, shard)

    def __iter__(self) -> "_PackedIterator":
        return _PackedIterator(*self._arguments)

    def __str__(self) -> str:
        return "PackedBatches"


class _Block(NamedTuple):
    """The rows of a host among those that were packed together, and the position in the order behind them."""

    rows: Batch
    after: Position


class _PackedIterator(grain.DatasetIterator):
    """Packs one block of rows after the other.

    The contents of a block depend only on the position where it starts and the number of batches before it. The state
    is therefore these two, and the number of batches of the block that were given out.
    """

    def __init__(self, order: GlobalOrder, streams: Streams, rows: int, shard: HostShard):
        super().__init__()
        self._order, self._streams, self._rows = order, streams, rows
        self._host, self._host_rows = shard.host, rows // shard.hosts
        self._block: _Block | None = None
        self._began = 0
        self._guess = 4 * _block_rows(rows)  # examples that fill a block: only an estimate of how many to look up
        self._set(order.start, 0, 0)

    def __next__(self) -> Batch:
        if self._block is None:
            self._block = self._pack()
        after = self._block.after
        batch = _rows(self._block.rows, self._batch * self._host_rows, self._host_rows)
        self._batch += 1
        if self._batch * self._rows == _block_rows(self._rows):
            step = self._step + self._batch
            if self._next_stage != after.stage:
                after = self._order.next_window(after, step, self._next_stage)
            self._set(after, step, 0)
        return batch

    def get_state(self) -> State:
        position = self._position._asdict() | {"counts": list(self._position.counts)}
        return {
            **position,
            "step": self._step,
            "batch": self._batch,
            "next_stage": self._next_stage,
            "began": self._began,
        }

    def set_state(self, state: State) -> None:
        names = {*Position._fields, "step", "batch", "next_stage", "began"}
        if {*state} != names or len(state["counts"]) != len(self._order.start.counts):
            raise UserError("the checkpoint's position in the data is of another version or other directions")
        position = Position(**{name: state[name] for name in Position._fields})
        position = position._replace(counts=tuple(position.counts))
        if state["batch"] == 0 and state["next_stage"] != position.stage:
            position = self._order.next_window(position, state["step"], state["next_stage"])
        self._set(position, state["step"], state["batch"])
        self._next_stage, self._began = state["next_stage"], state["began"]

    def __str__(self) -> str:
        return "PackedIterator"

    def _set(self, position: Position, step: int, batch: int) -> None:
        self._position, self._step, self._batch = position, step, batch
        self._next_stage = position.stage
        self._block = None

    def _pack(self) -> _Block:
        rows = _block_rows(self._rows)
        examples, parts = self._enough(rows)
        used, row = fit_rows(examples.lengths, rows, self._streams.limits)
        # First fit leaves the most room in the last rows; shuffled, or every block would end with a poor batch.
        row = np.random.default_rng([self._position.window, self._position.offset]).permutation(rows)[row]
        left = used
        for position, count in parts:
            after = position._replace(offset=position.offset + min(left, count))
            if left <= count:
                break
            left -= count
        self._guess = used + used // 16
        batch, row = np.divmod(row, self._rows)
        host, row = np.divmod(row, self._host_rows)
        mine = np.flatnonzero(host == self._host)
        local = batch[mine] * self._host_rows + row[mine]
        batches = rows // self._rows
        return _Block(self._streams.batch(local, examples.select(mine), batches * self._host_rows), after)

    def _enough(self, rows: int) -> tuple[LocatedExamples, list[tuple[Position, int]]]:
        """Return examples that fill more than so many rows, with the positions and numbers of `GlobalOrder.take`."""
        limits, guess = np.array(self._streams.limits), self._guess
        while True:
            parts, window = self._order.take(self._position, guess, self._step)
            examples = self._streams.find(window)
            if (examples.lengths.sum(axis=0) > rows * limits).any():
                return examples, parts
            guess += guess // 4 + 1
