"""Streams: what the mixture draws from. A split of the prepared store, opened for reading by stream and record."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nmt.config import DataConfig
from nmt.data.batch import Batch
from nmt.data.corpora.spec import Split
from nmt.data.packing import Examples, Prefixes, assemble
from nmt.data.records import TokenPairs, tokens_of
from nmt.data.store import RowLengths, load_stats, open_pairs
from nmt.data.vocab import BEGIN
from nmt.errors import UserError
from nmt.languages import Direction


@dataclass(frozen=True)
class Streams:
    """D streams of pairs, with the lengths of all pairs at hand and the pairs themselves on the disk."""

    pairs: list[TokenPairs]
    lengths: list[list[np.ndarray]]  # by stream and shard: pieces of both sides [N,2]
    prefixes: Prefixes
    limits: RowLengths

    @property
    def sizes(self) -> np.ndarray:
        """Pairs of every stream [D]."""
        return np.array([len(pairs) for pairs in self.pairs], np.int64)

    def lengths_of(self, stream: np.ndarray, record: np.ndarray) -> np.ndarray:
        """Return the tokens that examples take in a row, on both sides [N,2]."""
        found = self.prefixes.extras[stream]
        for number, at in _by_stream(stream):
            shards = self.lengths[number]
            if len(shards) == 1:
                found[at] += shards[0][record[at]]
                continue
            ends = np.cumsum([len(shard) for shard in shards])
            shard_of = np.searchsorted(ends, record[at], side="right")
            for shard in np.unique(shard_of):
                here = at[shard_of == shard]
                found[here] += shards[shard][record[here] - (ends[shard] - len(shards[shard]))]
        return found

    def batch(self, row: np.ndarray, stream: np.ndarray, record: np.ndarray, rows: int) -> Batch:
        """Return a batch of `rows` rows with each example [N] in its row; reads what it holds."""
        order = np.argsort(row, kind="stable")
        row, stream, record = row[order], stream[order], record[order]
        lengths = self.lengths_of(stream, record) - self.prefixes.extras[stream]
        records = [b""] * len(row)
        for number, at in _by_stream(stream):
            for place, found in zip(at.tolist(), self.pairs[number].records(record[at].tolist()), strict=True):
                records[place] = found
        source, target = tokens_of(records, lengths[:, 0])
        examples = Examples(row, stream, source, lengths[:, 0], target, lengths[:, 1])
        return assemble(examples, rows, self.limits, self.prefixes)


def open_streams(
    store_dir: os.PathLike[str] | str, split: Split, directions: Sequence[Direction], data: DataConfig
) -> Streams:
    """Open a split of a store, with the directions in the order given.

    Raises:
      UserError: there is no such store, it lacks a direction, is damaged, or was made for longer rows.
    """
    stats = load_stats(store_dir)
    limits = RowLengths(data.source_length, data.target_length)
    if stats.lengths.source > limits.source or stats.lengths.target > limits.target:
        raise UserError(
            f"{store_dir} was prepared for rows of {stats.lengths.source} and {stats.lengths.target} tokens, "
            f"not {limits.source} and {limits.target}; delete that folder to prepare it again"
        )
    pairs = [open_pairs(store_dir, split, direction, stats) for direction in directions]
    tags = [[stats.direction(direction).tag] for direction in directions]
    prefixes = Prefixes(tags, np.full(len(pairs), BEGIN, np.int32), np.arange(len(pairs), dtype=np.int32))
    return Streams(pairs, [one.lengths() for one in pairs], prefixes, limits)


def _by_stream(stream: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return each stream that occurs, with the places where it does."""
    order = np.argsort(stream, kind="stable")
    ordered = stream[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    return [(int(stream[at[0]]), at) for at in np.split(order, cuts) if len(at)]
