"""Packing: several pairs to a row, and the rows of a batch as arrays."""

from typing import Any, NamedTuple

import numpy as np

from nmt.data.batch import Batch
from nmt.data.store import RowLengths
from nmt.data.vocab import END

IntArray = np.ndarray[Any, np.dtype[np.int32]]

# What the first attempt hopes to fill of the side that fills first.
_HOPED_FILL = 0.99


class Examples(NamedTuple):
    """N examples in packed order: those of a row follow each other.

    What stands around the pieces is the same for all examples of a stream; see `Prefixes`.
    """

    row: np.ndarray  # [N] rising
    stream: np.ndarray  # [N]
    source: np.ndarray  # pieces of all sources, one after the other
    source_lengths: np.ndarray  # [N] pieces
    target: np.ndarray
    target_lengths: np.ndarray  # [N]


class Prefixes(NamedTuple):
    """What stands around the pieces of an example, by its stream [D]."""

    source: list[list[int]]  # tokens before the pieces of a source: tags
    begin: IntArray  # [D] the token that the decoder begins with
    direction: IntArray  # [D] what `Batch.direction` says

    @property
    def extras(self) -> np.ndarray:
        """The tokens besides the pieces [D,2]: tags and end of a source, begin (or end) of a target."""
        return np.array([(len(tags) + 1, 1) for tags in self.source], np.int64)


def fit_rows(lengths: np.ndarray, rows: int, limits: RowLengths) -> tuple[int, np.ndarray]:
    """Pack the longest beginning of a list of examples that a few attempts find room for.

    First fit, the longest examples first; where some find no room, half as many are left off at the end, and again.

    Args:
      lengths: tokens of the examples on both sides [N,2].
      rows: number of rows.
      limits: S and T.

    Returns:
      how many of the examples are in, at least 1, and the row of each of those.

    Raises:
      ValueError: an example fits no row, not even an empty one.
    """
    if (too_long := (lengths > limits).any(axis=1)).any():
        source, target = lengths[too_long][0]
        raise ValueError(f"a pair of {source} and {target} tokens does not fit a row of {limits}")
    room = rows * _HOPED_FILL * np.array(limits)
    used = max(1, int((lengths.cumsum(axis=0) <= room).all(axis=1).sum()))
    while True:
        placed = _first_fit(lengths[:used], rows, limits)
        if not (left := int((placed < 0).sum())):
            return used, placed
        used = max(1, used - (left + 1) // 2)


def _first_fit(lengths: np.ndarray, rows: int, limits: RowLengths) -> np.ndarray:
    """Return the row of every example, -1 for those without."""
    order = np.argsort(-(lengths / np.array(limits)).max(axis=1), kind="stable")
    source_room, target_room = np.full(rows, limits.source), np.full(rows, limits.target)
    placed = np.full(len(lengths), -1)
    for example, (source, target) in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fits = (source_room >= source) & (target_room >= target)
        row = int(fits.argmax())
        if fits[row]:
            source_room[row] -= source
            target_room[row] -= target
            placed[example] = row
    return placed


def assemble(examples: Examples, rows: int, lengths: RowLengths, prefixes: Prefixes) -> Batch:
    """Return packed examples as a batch.

    Args:
      examples: what the rows hold; a row without examples is all padding.
      rows: B.
      lengths: S and T.
      prefixes: what stands before the pieces, by stream.
    """
    most = max(map(len, prefixes.source))
    table = np.array([[*tags, *[-1] * (most - len(tags))] for tags in prefixes.source], np.int32)
    tags, begin = list(table[examples.stream].T), [prefixes.begin[examples.stream]]
    extras = prefixes.extras[examples.stream]
    source = _Side(examples.row, examples.source_lengths + extras[:, 0], (rows, lengths.source))
    target = _Side(examples.row, examples.target_lengths + extras[:, 1], (rows, lengths.target))
    direction = prefixes.direction[examples.stream]
    return Batch(
        src=source.place(source.surround(examples.source, tags, END)),
        src_segment=source.place(source.segment),
        src_position=source.place(source.position),
        tgt_in=target.place(target.surround(examples.target, begin)),
        tgt_out=target.place(target.surround(examples.target, [], END)),
        tgt_segment=target.place(target.segment),
        tgt_position=target.place(target.position),
        direction=target.place(np.repeat(direction, target.lengths)),
    )


class _Side:
    """Where the tokens of one side go: everything is computed for all tokens of a batch at once."""

    def __init__(self, row: np.ndarray, lengths: np.ndarray, shape: tuple[int, int]):
        """Take the row of every pair, rising, the tokens of every pair, and the shape of the batch."""
        self.lengths = lengths
        self._shape = shape
        self._last = np.cumsum(lengths) - 1
        self._first = self._last + 1 - lengths
        counts = np.bincount(row, minlength=shape[0])
        first_pair = np.repeat(np.cumsum(counts) - counts, counts)
        row_start = self._first[first_pair]
        self.segment = np.repeat(np.arange(len(row)) - first_pair + 1, lengths)
        self.position = np.arange(lengths.sum()) - np.repeat(self._first, lengths)
        self._slot = np.repeat(row * shape[1] + self._first - row_start, lengths) + self.position

    def surround(self, pieces: np.ndarray, heads: list[np.ndarray], last: int | None = None) -> np.ndarray:
        """Return the tokens of all pairs: the heads that are not -1, the pieces, and a last token."""
        tokens = np.empty(len(self._slot), np.int32)
        inner = np.ones(len(self._slot), bool)
        for place, head in enumerate(heads):
            has = head >= 0
            tokens[self._first[has] + place] = head[has]
            inner[self._first[has] + place] = False
        if last is not None:
            tokens[self._last] = last
            inner[self._last] = False
        tokens[inner] = pieces
        return tokens

    def place(self, values: np.ndarray) -> IntArray:
        """Return the values of all tokens in their rows, 0 elsewhere."""
        rows = np.zeros(self._shape, np.int32)
        rows.reshape(-1)[self._slot] = values
        return rows
