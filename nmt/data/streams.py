"""Streams: what the mixture draws from. A split of the prepared store, opened for reading by stream and record."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nmt.config import DataConfig
from nmt.data.augment import Augmenter, Pair
from nmt.data.batch import Batch
from nmt.data.corpora.spec import Split
from nmt.data.denoising import Denoiser
from nmt.data.mixture import denoised
from nmt.data.order import Window
from nmt.data.packing import Examples, Prefixes, assemble
from nmt.data.records import TokenPairs, decode_record, tokens_of
from nmt.data.store import DirectionStats, RowLengths, load_stats, open_pairs
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
    offsets: np.ndarray  # [D] the record that a stream begins with
    sizes: np.ndarray  # [D] pairs of every stream
    augmenter: Augmenter | None = None
    denoiser: Denoiser | None = None

    def lengths_of(self, window: Window) -> np.ndarray:
        """Return the tokens that examples take in a row, on both sides [N,2]; reads them if they are augmented."""
        lengths = self._unmasked_lengths(window)
        if self.denoiser is not None:
            extras = self.prefixes.extras[window.stream, 0]
            lengths[:, 0] = self.denoiser.lengths(window, lengths[:, 0] - extras) + extras
        return lengths

    def _unmasked_lengths(self, window: Window) -> np.ndarray:
        if self.augmenter is None:
            return self._stored_lengths(window)
        changed = self._changed(window)
        lengths = [(len(source), len(target)) for source, target in changed]
        return np.array(lengths, np.int64).reshape(-1, 2) + self.prefixes.extras[window.stream]

    def batch(self, row: np.ndarray, window: Window, rows: int) -> Batch:
        """Return a batch of `rows` rows with each example [N] in its row; reads what it holds."""
        order = np.argsort(row, kind="stable")
        row, window = row[order], window.at(order)
        if self.augmenter is None:
            lengths = self._stored_lengths(window) - self.prefixes.extras[window.stream]
            source, target = tokens_of(self._records(window), lengths[:, 0])
        else:
            changed = self._changed(window)
            lengths = np.array([(len(s), len(t)) for s, t in changed], np.int64).reshape(-1, 2)
            source, target = (
                np.fromiter(itertools.chain.from_iterable(pair[side] for pair in changed), np.int32) for side in (0, 1)
            )
        source_lengths = lengths[:, 0]
        if self.denoiser is not None:
            source, source_lengths = self.denoiser.masked(window, source, source_lengths)
        examples = Examples(row, window.stream, source, source_lengths, target, lengths[:, 1])
        return assemble(examples, rows, self.limits, self.prefixes)

    def _stored_lengths(self, window: Window) -> np.ndarray:
        found = self.prefixes.extras[window.stream]
        for number, at in _by_stream(window.stream):
            shards, record = self.lengths[number], window.record[at] + self.offsets[number]
            if len(shards) == 1:
                found[at] += shards[0][record]
                continue
            ends = np.cumsum([len(shard) for shard in shards])
            shard_of = np.searchsorted(ends, record, side="right")
            for shard in np.unique(shard_of):
                here = shard_of == shard
                found[at[here]] += shards[shard][record[here] - (ends[shard] - len(shards[shard]))]
        return found

    def _records(self, window: Window) -> list[bytes]:
        records = [b""] * len(window.stream)
        for number, at in _by_stream(window.stream):
            places = (window.record[at] + self.offsets[number]).tolist()
            for place, found in zip(at.tolist(), self.pairs[number].records(places), strict=True):
                records[place] = found
        return records

    def _changed(self, window: Window) -> list[Pair]:
        assert self.augmenter is not None
        keys = list(zip(window.stream.tolist(), window.occurrence.tolist(), strict=True))
        pairs = [self.augmenter.known(*key) for key in keys]
        new = np.array([place for place, pair in enumerate(pairs) if pair is None], np.int64)
        most = np.array(self.limits) - self.prefixes.extras
        for place, record in zip(new.tolist(), self._records(window.at(new)), strict=True):
            stream, occurrence = keys[place]
            pair = decode_record(record)
            limits = RowLengths(*most[stream].tolist())
            pairs[place] = self.augmenter.change(stream, occurrence, pair.source.tolist(), pair.target.tolist(), limits)
        return [pair for pair in pairs if pair is not None]


def open_streams(
    store_dir: os.PathLike[str] | str,
    split: Split,
    directions: Sequence[Direction],
    data: DataConfig,
    augmenter: Augmenter | None = None,
) -> Streams:
    """Open a split of a store, with the directions in the order given.

    Where back-translated pairs have a share of their own, each direction with both kinds has one more stream behind
    these. Of the training split, the last streams are those of denoising, in the order of the recipe.

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
    texts = denoised(data) if split == "train" else ()
    everything = (*directions, *texts)
    pairs = [open_pairs(store_dir, split, direction, stats) for direction in everything]
    sizes = np.array([len(one) for one in pairs[: len(directions)]], np.int64)
    numbers, offsets = np.arange(len(directions), dtype=np.int32), np.zeros(len(directions), np.int64)
    if split == "train" and data.mixture.back_translated is not None:
        made = np.array([stats.direction(direction).back_translated for direction in directions], np.int64)
        extra = np.flatnonzero((made > 0) & (made < sizes))
        sizes[extra] -= made[extra]
        offsets, sizes = np.concatenate([offsets, sizes[extra]]), np.concatenate([sizes, made[extra]])
        numbers = np.concatenate([numbers, extra]).astype(np.int32)
    last = np.arange(len(directions), len(pairs), dtype=np.int32)
    numbers, offsets = np.concatenate([numbers, last]), np.concatenate([offsets, np.zeros(len(last), np.int64)])
    sizes = np.concatenate([sizes, np.array([len(pairs[number]) for number in last], np.int64)])
    heads = [_tags(stats.direction(direction), data.tags, store_dir) for direction in everything]
    tags, begin = [[tag] for tag, _ in heads], np.array([begin for _, begin in heads], np.int32)
    prefixes = Prefixes([tags[number] for number in numbers], begin[numbers], numbers)
    lengths = [one.lengths() for one in pairs]
    at = numbers.tolist()
    return Streams([pairs[i] for i in at], [lengths[i] for i in at], prefixes, limits, offsets, sizes, augmenter)


def _tags(direction: DirectionStats, style: str, store_dir: os.PathLike[str] | str) -> tuple[int, int]:
    """Return the tag before the sources of a direction, and the token that its decoder begins with."""
    if style == "target":
        return direction.tag, BEGIN
    if direction.source_tag is None or direction.target_tag is None:
        raise UserError(
            f"{store_dir} was prepared without the tags that data.tags=nllb needs; start afresh with another run_dir"
        )
    return direction.source_tag, direction.target_tag


def _by_stream(stream: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return each stream that occurs, with the places where it does."""
    order = np.argsort(stream, kind="stable")
    ordered = stream[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    return [(int(stream[at[0]]), at) for at in np.split(order, cuts) if len(at)]
