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
    """N examples in any order; those of a row are put into it in this order.

    What stands around the pieces is the same for all examples of a stream; see `Prefixes`.
    """

    row: np.ndarray  # [N]
    stream: np.ndarray  # [N]
    words: np.ndarray  # the pieces of all examples
    source: np.ndarray  # [N] where in them the pieces of each source begin
    target: np.ndarray  # [N]
    lengths: np.ndarray  # [N,2] pieces of both sides


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


def assemble(examples: Examples, rows: int, limits: RowLengths, prefixes: Prefixes) -> Batch:
    """Return packed examples as a batch.

    Args:
      examples: what the rows hold; a row without examples is all padding.
      rows: B.
      limits: S and T.
      prefixes: what stands before the pieces, by stream.
    """
    order = np.argsort(examples.row, kind="stable")
    stream = examples.stream[order]
    most = max(map(len, prefixes.source))
    table = np.array([[*tags, *[-1] * (most - len(tags))] for tags in prefixes.source], np.int32)
    lengths = examples.lengths[order] + prefixes.extras[stream]
    source = _Side(examples.row[order], lengths[:, 0], (rows, limits.source))
    target = _Side(examples.row[order], lengths[:, 1], (rows, limits.target))
    tags = table[stream]
    src = source.tokens(examples.words, examples.source[order] - (tags >= 0).sum(axis=1))
    source.put(src, tags)
    tgt_out = target.tokens(examples.words, examples.target[order])
    return Batch(
        src=src,
        src_segment=source.segment,
        src_position=source.position(),
        tgt_in=target.shifted(tgt_out, prefixes.begin[stream]),
        tgt_out=tgt_out,
        tgt_segment=target.segment,
        tgt_position=target.position(),
        direction=target.spread(prefixes.direction[stream]),
    )


class _Side:
    """Where the tokens of one side go.

    All slots of all rows, one after the other, are runs: those of a row's N pairs, then its padding. What is the same
    in a run is repeated, which needs no index per token.
    """

    def __init__(self, row: np.ndarray, lengths: np.ndarray, shape: tuple[int, int]):
        """Take the row of every pair, rising, the tokens of every pair, and the shape of the batch."""
        rows, width = shape
        self._shape = shape
        self._run = np.arange(len(row)) + row
        ends = np.cumsum(np.bincount(row, minlength=rows))
        padding = ends + np.arange(rows)
        self._sizes = np.zeros(len(row) + rows, np.int64)
        self._sizes[self._run] = lengths
        filled = np.concatenate([[0], np.cumsum(lengths)])[ends]
        self._sizes[padding] = width - np.diff(filled, prepend=0)
        starts = np.cumsum(self._sizes) - self._sizes
        self._first, self._last = starts[self._run], starts[self._run] + lengths - 1
        self._padded = starts[padding[self._sizes[padding] > 0]]  # the first slot of each row's padding
        first_pair = (ends - np.bincount(row, minlength=rows))[row]
        self.segment = self.spread(np.arange(len(row)) - first_pair + 1)

    def spread(self, values: np.ndarray) -> IntArray:
        """Return the value of every pair [N] in all its slots, 0 in padding."""
        return self._spread(values, np.int32).reshape(self._shape)

    def position(self) -> IntArray:
        """Return the position of every slot in its pair, 0 in padding."""
        slots = np.arange(self._shape[0] * self._shape[1], dtype=np.int32)
        position = slots.reshape(self._shape) - self.spread(self._first)
        position *= self.segment > 0
        return position

    def tokens(self, words: np.ndarray, first: np.ndarray) -> IntArray:
        """Return the words of every pair in its slots, the first of them at `first` [N], and END in its last slot."""
        slots = np.arange(self._shape[0] * self._shape[1])
        slots += self._spread(first - self._first, np.int64)
        found = words.take(slots, mode="clip") if len(words) else np.zeros(len(slots), np.int32)
        tokens = found.reshape(self._shape) * (self.segment > 0).astype(np.int32)
        tokens.reshape(-1)[self._last] = END
        return tokens

    def put(self, tokens: IntArray, heads: np.ndarray) -> None:
        """Put the heads of every pair that are not -1 [N,K] into its first slots."""
        for place, head in enumerate(heads.T):
            has = head >= 0
            tokens.reshape(-1)[self._first[has] + place] = head[has]

    def shifted(self, tokens: IntArray, begin: np.ndarray) -> IntArray:
        """Return the tokens of every pair moved by one slot, behind what it begins with [N]."""
        moved = np.empty_like(tokens)
        flat = moved.reshape(-1)
        flat[1:] = tokens.reshape(-1)[:-1]
        flat[self._padded] = 0
        flat[self._first] = begin
        return moved

    def _spread(self, values: np.ndarray, dtype: type[np.signedinteger[Any]]) -> np.ndarray:
        runs = np.zeros(len(self._sizes), dtype)
        runs[self._run] = values
        return np.repeat(runs, self._sizes)
