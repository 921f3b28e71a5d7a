"""Packing: puts several pairs into a row, and builds the arrays of a batch from the rows."""

from typing import Any, NamedTuple

import numpy as np

from nmt.data.batch import Batch
from nmt.data.store import RowLengths
from nmt.data.vocab import END

IntArray = np.ndarray[Any, np.dtype[np.int32]]

# Fill of the fuller side that the first attempt aims at.
_HOPED_FILL = 0.99
# Rows whose free room is kept in one integer.
_ROWS_PER_INTEGER = 256


class Examples(NamedTuple):
    """U examples in any order; the examples of a row keep this order inside it.

    Tags, begin and end are not among the pieces: they are the same for all examples of a stream; see `Prefixes`.
    """

    row: np.ndarray  # [U] row of the batch
    stream: np.ndarray  # [U] index of the stream
    words: np.ndarray  # the pieces of all examples, concatenated
    source: np.ndarray  # [U] index into words of the first piece of each source
    target: np.ndarray  # [U] index into words of the first piece of each target
    lengths: np.ndarray  # [U,2] pieces of source and target


class Prefixes(NamedTuple):
    """The tokens that are added around the pieces of an example, for each of Z streams."""

    source: list[list[int]]  # [Z] tags before the pieces of a source
    begin: IntArray  # [Z] the token that the decoder begins with
    direction: IntArray  # [Z] index into the directions of the recipe

    @property
    def extras(self) -> np.ndarray:
        """The number of added tokens [Z,2]: tags and end of a source, begin (or end) of a target."""
        return np.array([(len(tags) + 1, 1) for tags in self.source], np.int64)


def fit_rows(lengths: np.ndarray, rows: int, limits: RowLengths) -> tuple[int, np.ndarray]:
    """Pack as many examples as fit, from the beginning of a list.

    Examples are placed by first fit, the longest first. If some find no room, half as many are cut from the end of the
    list, and packing begins again.

    Args:
      lengths: tokens of the examples, source and target [U,2].
      rows: number of rows.
      limits: S and T.

    Returns:
      The number of examples that were packed, at least 1, and the row of each of them.

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
    """Return the row of every example [U], -1 for examples without room.

    The free room of 256 rows is one integer with a field for each row: its room, and a guard bit above it. The tokens
    of an example are subtracted from all fields at once; a guard bit that is still set marks a row with room for it.
    """
    order = np.argsort(-(lengths / np.array(limits)).max(axis=1), kind="stable")
    width = max(limits).bit_length() + 1
    ones = ((1 << width * _ROWS_PER_INTEGER) - 1) // ((1 << width) - 1)
    guards = ones << (width - 1)
    taken = [number * ones for number in range(max(limits) + 1)]
    parts = range(0, rows, _ROWS_PER_INTEGER)
    present = [guards & ((1 << width * (rows - first)) - 1) for first in parts]
    source_room, target_room = ([guards | limit * ones for _ in parts] for limit in limits)
    found = []
    for source, target in lengths[order].tolist():
        for part, guard in enumerate(present):
            if fits := (source_room[part] - taken[source]) & (target_room[part] - taken[target]) & guard:
                shift = (fits & -fits).bit_length() - width
                source_room[part] -= source << shift
                target_room[part] -= target << shift
                found.append(part * _ROWS_PER_INTEGER + shift // width)
                break
        else:
            found.append(-1)
    placed = np.empty(len(lengths), np.int64)
    placed[order] = found
    return placed


def assemble(examples: Examples, rows: int, limits: RowLengths, prefixes: Prefixes) -> Batch:
    """Return packed examples as a batch.

    Args:
      examples: the examples of all rows; a row without examples is all padding.
      rows: B.
      limits: S and T.
      prefixes: tags and begin tokens of the streams.
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
    source.put_heads(src, tags)
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
    """The layout of one side of a batch: where the tokens of U pairs go.

    The slots of all rows, one row after the other, are divided into runs: one for each pair of a row, then one for its
    padding. A value that is the same in a whole run is repeated, which needs no index for each token.
    """

    def __init__(self, row: np.ndarray, lengths: np.ndarray, shape: tuple[int, int]):
        """Take the row of every pair [U], ascending, its number of tokens [U], and the shape of the batch."""
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
        """Repeat the value of every pair [U] in all its slots, 0 in padding [B,S] or [B,T]."""
        return self._spread(values, np.int32).reshape(self._shape)

    def position(self) -> IntArray:
        """Return the position of every slot in its pair, 0 in padding [B,S] or [B,T]."""
        slots = np.arange(self._shape[0] * self._shape[1], dtype=np.int32)
        position = slots.reshape(self._shape) - self.spread(self._first)
        position *= self.segment > 0
        return position

    def tokens(self, words: np.ndarray, first: np.ndarray) -> IntArray:
        """Fill the slots of every pair with its words, which begin at index `first` [U], and its last slot with END."""
        slots = np.arange(self._shape[0] * self._shape[1])
        slots += self._spread(first - self._first, np.int64)
        found = words.take(slots, mode="clip") if len(words) else np.zeros(len(slots), np.int32)
        tokens = found.reshape(self._shape) * (self.segment > 0).astype(np.int32)
        tokens.reshape(-1)[self._last] = END
        return tokens

    def put_heads(self, tokens: IntArray, heads: np.ndarray) -> None:
        """Put the heads of every pair [U, most tags] into its first slots; -1 stands for none."""
        for place, head in enumerate(heads.T):
            has = head >= 0
            tokens.reshape(-1)[self._first[has] + place] = head[has]

    def shifted(self, tokens: IntArray, begin: np.ndarray) -> IntArray:
        """Move the tokens of every pair one slot to the right, and put its begin token [U] first."""
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
