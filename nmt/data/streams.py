"""Streams: the lists of pairs that the mixture draws from, read from a split of the prepared store."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nmt.config import DataConfig
from nmt.corpora.declare.spec_split import Split
from nmt.data.augment import Augmenter, Pair
from nmt.data.batch import Batch
from nmt.data.denoising import Denoiser
from nmt.data.mixture import denoising_directions
from nmt.data.order import DrawnExamples
from nmt.data.packing import Examples, Prefixes, assemble
from nmt.data.records import Located, TokenPairs
from nmt.data.store import DirectionStats, RowLengths, load_stats, open_pairs
from nmt.data.vocab import BEGIN
from nmt.errors import UserError
from nmt.files import allow_open_files
from nmt.languages import Direction


class LocatedExamples(NamedTuple):
    """U examples: their draws, their places in the store, and their tokens in a row, source and target [U,2]."""

    window: DrawnExamples
    located: Located
    lengths: np.ndarray

    def select(self, places: Any) -> "LocatedExamples":
        """Return the examples at some places: indices, a mask or a slice."""
        return LocatedExamples(self.window.select(places), self.located.select(places), self.lengths[places])


@dataclass(frozen=True)
class Streams:
    """Z streams of pairs; the pairs and their lengths stay on disk."""

    pairs: TokenPairs  # the pairs of all streams
    prefixes: Prefixes
    limits: RowLengths
    offsets: np.ndarray  # [Z] number of the first pair of each stream
    sizes: np.ndarray  # [Z] number of pairs of each stream
    augmenter: Augmenter | None = None
    denoiser: Denoiser | None = None

    def find(self, window: DrawnExamples) -> LocatedExamples:
        """Look up places and lengths of examples; augmented ones are read as well, since their lengths change.

        Raises:
          UserError: a shard is missing or damaged.
        """
        located = self.pairs.locate(window.record + self.offsets[window.stream])
        extras = self.prefixes.extras[window.stream]
        lengths = located.lengths + extras
        if (too_long := (lengths > self.limits).any(axis=1)).any():
            raise self.pairs.damaged(located.shard[too_long][0], 1, "a pair is longer than any that was written")
        if self.augmenter is not None:
            lengths = _lengths(self._changed(window, located)) + extras
        if self.denoiser is not None:
            lengths[:, 0] = self.denoiser.lengths(window, lengths[:, 0] - extras[:, 0]) + extras[:, 0]
        return LocatedExamples(window, located, lengths)

    def batch(self, row: np.ndarray, found: LocatedExamples, rows: int) -> Batch:
        """Read examples, and return a batch of `rows` rows with each of them in its `row` [U]."""
        if self.augmenter is None:
            words, first = self.pairs.words(found.located)
            lengths = found.located.lengths
        else:
            changed = self._changed(found.window, found.located)
            ids = itertools.chain.from_iterable(itertools.chain.from_iterable(changed))
            words, lengths = np.fromiter(ids, np.int32), _lengths(changed)
            first = np.cumsum(lengths.sum(axis=1)) - lengths.sum(axis=1)
        examples = Examples(row, found.window.stream, words, first, first + lengths[:, 0], lengths)
        if self.denoiser is not None:
            examples = self._masked(self.denoiser, found.window, examples)
        return assemble(examples, rows, self.limits, self.prefixes)

    def _masked(self, denoiser: Denoiser, window: DrawnExamples, examples: Examples) -> Examples:
        """Mask the sources of denoising; masked sources are appended to the words."""
        chosen = np.flatnonzero(denoiser.selects(window))
        words, source, lengths = examples.words, examples.source.copy(), examples.lengths.copy()
        sizes = lengths[chosen, 0]
        whole = np.repeat(source[chosen] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        masked, now = denoiser.mask_sources(window.select(chosen), words[whole], sizes)
        source[chosen], lengths[chosen, 0] = len(words) + np.cumsum(now) - now, now
        return examples._replace(words=np.concatenate([words, masked]), source=source, lengths=lengths)

    def _changed(self, window: DrawnExamples, located: Located) -> list[Pair]:
        assert self.augmenter is not None
        keys = list(zip(window.stream.tolist(), window.occurrence.tolist(), strict=True))
        pairs = [self.augmenter.recall(*key) for key in keys]
        new = np.array([place for place, pair in enumerate(pairs) if pair is None], np.int64)
        most = np.array(self.limits) - self.prefixes.extras
        for place, (source, target) in zip(new.tolist(), self.pairs.read(located.select(new)), strict=True):
            stream, occurrence = keys[place]
            limits = RowLengths(*most[stream].tolist())
            pairs[place] = self.augmenter.change(stream, occurrence, source.tolist(), target.tolist(), limits)
        return [pair for pair in pairs if pair is not None]


def _lengths(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the number of pieces of source and target [U,2]."""
    return np.array([(len(source), len(target)) for source, target in pairs], np.int64).reshape(-1, 2)


def open_streams(
    store_dir: os.PathLike[str] | str,
    split: Split,
    directions: Sequence[Direction],
    data: DataConfig,
    augmenter: Augmenter | None = None,
) -> Streams:
    """Open a split of a store: a stream for each direction, in the order given, and then further streams.

    If back-translated pairs have a share of their own, each direction with both kinds of pairs gets a second stream for
    them. In the training split, the denoising streams come last, in the order of the recipe.

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
    texts = denoising_directions(data) if split == "train" else ()
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
    first = np.concatenate([[0], np.cumsum([len(one) for one in pairs])])
    joined = TokenPairs.joined(pairs)
    allow_open_files(joined.files)
    return Streams(joined, prefixes, limits, first[numbers] + offsets, sizes, augmenter)


def _tags(direction: DirectionStats, style: str, store_dir: os.PathLike[str] | str) -> tuple[int, int]:
    """Return the tag before the sources of a direction, and the first token of its decoder."""
    if style == "target":
        return direction.tag, BEGIN
    if direction.source_tag is None or direction.target_tag is None:
        raise UserError(
            f"{store_dir} was prepared without the tags that data.tags=nllb needs; start afresh with another run_dir"
        )
    return direction.source_tag, direction.target_tag
