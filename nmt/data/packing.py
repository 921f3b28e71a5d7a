"""Packing: several pairs to a row, and the rows of a batch as arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nmt.data.batch import Batch
from nmt.data.records import TokenPair
from nmt.data.store import SOURCE_EXTRA, TARGET_EXTRA, RowLengths
from nmt.data.vocab import BEGIN, END

IntArray = np.ndarray[Any, np.dtype[np.int32]]


class Example(NamedTuple):
    """A pair of a direction: its index in the recipe, and the pieces of both sides."""

    direction: int
    pair: TokenPair


class Packer:
    """First-fit packing into a number of open rows."""

    def __init__(self, rows: int, lengths: RowLengths):
        """Open so many empty rows of S and T tokens."""
        self.rows: list[list[Example]] = [[] for _ in range(rows)]
        self._lengths = lengths
        self._source_room = np.full(rows, lengths.source)
        self._target_room = np.full(rows, lengths.target)

    def add(self, example: Example) -> bool:
        """Put a pair into the first row with room on both sides; False: there is none.

        Raises:
          ValueError: the pair fits no row, not even an empty one.
        """
        source, target = len(example.pair.source) + SOURCE_EXTRA, len(example.pair.target) + TARGET_EXTRA
        fits = (self._source_room >= source) & (self._target_room >= target)
        row = int(fits.argmax())
        if not fits[row]:
            if source > self._lengths.source or target > self._lengths.target:
                raise ValueError(f"a pair of {source} and {target} tokens does not fit a row of {self._lengths}")
            return False
        self._source_room[row] -= source
        self._target_room[row] -= target
        self.rows[row].append(example)
        return True


def assemble(rows: Sequence[Sequence[Example]], lengths: RowLengths, tags: Sequence[int]) -> Batch:
    """Return packed rows as a batch.

    Args:
      rows: the pairs of every row, B of them; an empty row is all padding.
      lengths: S and T.
      tags: the tag of the target language, by index of the direction.
    """
    examples = [example for row in rows for example in row]
    counts = np.array([len(row) for row in rows], np.int64)
    sides = [[example.pair[side] for example in examples] for side in (0, 1)]
    source = _Side(counts, [len(pieces) + SOURCE_EXTRA for pieces in sides[0]], lengths.source)
    target = _Side(counts, [len(pieces) + TARGET_EXTRA for pieces in sides[1]], lengths.target)
    direction = np.array([example.direction for example in examples], np.int32)
    tag = np.array(tags, np.int32)[direction]
    return Batch(
        src=source.place(source.surround(sides[0], first=tag, last=END)),
        src_segment=source.place(source.segment),
        src_position=source.place(source.position),
        tgt_in=target.place(target.surround(sides[1], first=BEGIN)),
        tgt_out=target.place(target.surround(sides[1], last=END)),
        tgt_segment=target.place(target.segment),
        tgt_position=target.place(target.position),
        direction=target.place(np.repeat(direction, target.lengths)),
    )


class _Side:
    """Where the tokens of one side go: everything is computed for all tokens of a batch at once."""

    def __init__(self, counts: np.ndarray, lengths: list[int], row_length: int):
        """Take the number of pairs in every row, the tokens of every pair, and the length of a row."""
        self.lengths = np.array(lengths, np.int64)
        self._shape = (len(counts), row_length)
        self._last = np.cumsum(self.lengths) - 1
        self._first = self._last + 1 - self.lengths
        row = np.repeat(np.arange(len(counts)), counts)
        first_pair = np.repeat(np.cumsum(counts) - counts, counts)
        row_start = self._first[first_pair] if len(row) else self._first
        self.segment = np.repeat(np.arange(len(row)) - first_pair + 1, self.lengths)
        self.position = np.arange(self.lengths.sum()) - np.repeat(self._first, self.lengths)
        self._slot = np.repeat(row * row_length + self._first - row_start, self.lengths) + self.position

    def surround(
        self, pieces: list[np.ndarray], first: np.ndarray | int | None = None, last: int | None = None
    ) -> np.ndarray:
        """Return the tokens of all pairs: pieces, with a first and a last token around those of each pair."""
        tokens = np.empty(len(self._slot), np.int32)
        inner = np.ones(len(self._slot), bool)
        for place, token in ((self._first, first), (self._last, last)):
            if token is not None:
                tokens[place] = token
                inner[place] = False
        if pieces:
            tokens[inner] = np.concatenate(pieces)
        return tokens

    def place(self, values: np.ndarray) -> IntArray:
        """Return the values of all tokens in their rows, 0 elsewhere."""
        rows = np.zeros(self._shape, np.int32)
        rows.reshape(-1)[self._slot] = values
        return rows
