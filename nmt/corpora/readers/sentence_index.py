"""Sentences by their numbers, for corpora whose pairs are links between numbers; texts are kept on the disk.

An index holds 22 bytes for each sentence that is wanted (twice that while it is sorted), a byte for each number up to
the largest, and 8 bytes, later 16, for each link of a sentence that is wanted.
"""

import os
import tempfile
import warnings
from array import array
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 1 << 31  # numbers of sentences are below

_Numbers = NDArray[np.int64]
_Marks = NDArray[np.bool_]
_TAB, _NEWLINE = 9, 10
_BUFFER = 1 << 16
_BLOCK = 1 << 12  # links whose texts are read at once
_NONE = np.zeros(0, np.int64)


class SentenceLink(NamedTuple):
    """Two sentences that translate each other."""

    numbers: tuple[int, int]  # the smaller one first
    languages: tuple[int, int]
    texts: tuple[str, str]


class LinkCounts(NamedTuple):
    """Counts of links that are left out, those in both directions counted once."""

    absent: int  # between a sentence that is wanted and one that no file has
    same: int  # between two sentences of one language


class SentenceIndex:
    """Sentences by their numbers; languages are numbers here, too."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="nmt-", buffering=_BUFFER)  # noqa: SIM115 - see `close`
        self._end = 0
        self._there = bytearray(1 << 16)  # by number: whether any file has such a sentence
        self._numbers, self._places, self._languages, self._sizes = array("q"), array("q"), array("H"), array("I")
        self._links: list[_Numbers] = []
        self._absent: list[_Numbers] = []
        self._same: list[_Numbers] = []

    def note(self, number: int) -> None:
        """Note that there is a sentence of a number below `MOST`, of whatever language."""
        if number >= len(self._there):
            self._there.extend(bytes(max(len(self._there), number + 1 - len(self._there))))
        self._there[number] = 1

    def add(self, number: int, language: int, text: bytes) -> None:
        """Add a sentence that is wanted."""
        self._numbers.append(number)
        self._places.append(self._end)
        self._languages.append(language)
        self._sizes.append(len(text))
        self._end += self._file.write(text)

    def sort(self) -> list[int]:
        """Sort the sentences by their numbers, once all are added; return numbers that several have.

        Of these the first sentence stays.
        """
        numbers = np.array(self._numbers, np.int64)
        self.numbers, order = np.unique(numbers, return_index=True)
        self.places = np.array(self._places, np.int64)[order]
        self.languages = np.array(self._languages, np.uint16)[order]
        self.sizes = np.array(self._sizes, np.uint32)[order]
        self._numbers, self._places, self._languages, self._sizes = array("q"), array("q"), array("H"), array("I")
        again = np.delete(numbers, order)
        self.there = np.frombuffer(self._there, np.uint8)
        self._file.flush()
        return [int(number) for number in again]

    def link(self, first: _Numbers, second: _Numbers) -> LinkCounts:
        """Keep links; return where (from 0) the first of each sort stands that is left out, -1 where there is none."""
        (one, has_first), (other, has_second) = self._find(first), self._find(second)
        both = has_first & has_second
        same = both & (self.languages[one] == self.languages[other]) if self.numbers.size else both
        absent = (has_first & ~self._is_there(second)) | (has_second & ~self._is_there(first))
        self._links.append(_packed(one, other, both & ~same))
        self._same.append(_packed(one, other, same))
        self._absent.append(_packed(first, second, absent))
        return LinkCounts(_first(absent), _first(same))

    def left_out(self) -> LinkCounts:
        """Return how many of all links are left out."""
        absent, same = (np.unique(np.concatenate([_NONE, *packed])).size for packed in (self._absent, self._same))
        return LinkCounts(absent, same)

    def _find(self, numbers: _Numbers) -> tuple[_Numbers, _Marks]:
        """Return the places of sentences in the index, and which of them are there."""
        if not self.numbers.size:
            return np.zeros_like(numbers), np.zeros(numbers.shape, bool)
        places = np.minimum(np.searchsorted(self.numbers, numbers), self.numbers.size - 1)
        return places, self.numbers[places] == numbers

    def _is_there(self, numbers: _Numbers) -> _Marks:
        inside = (numbers >= 0) & (numbers < self.there.size)
        return inside & (self.there[np.where(inside, numbers, 0)] == 1)

    def pairs(self) -> Iterator[SentenceLink]:
        """Yield all links with their texts, each once, by the smaller number and then by the larger one."""
        links = np.unique(np.concatenate([_NONE, *self._links]))
        self._links = []
        for begin in range(0, links.size, _BLOCK):
            places = np.divmod(links[begin : begin + _BLOCK], MOST)
            columns = [of[side].tolist() for of in (self.numbers, self.languages) for side in places]
            texts = [map(self._text, self.places[side].tolist(), self.sizes[side].tolist()) for side in places]
            for low, high, one, other, text, translation in zip(*columns, *texts, strict=True):
                yield SentenceLink((low, high), (one, other), (text, translation))

    def _text(self, place: int, size: int) -> str:
        # A buffer would be filled anew for each sentence.
        return os.pread(self._file.fileno(), size, place).decode("utf-8")

    def close(self) -> None:
        """Remove the texts from the disk."""
        self._file.close()


def _first(marks: _Marks) -> int:
    return int(marks.argmax()) if marks.any() else -1


def _packed(one: _Numbers, other: _Numbers, chosen: _Marks) -> _Numbers:
    """Return some of two columns of numbers below `MOST` as single numbers, the same ones in both directions."""
    one, other = one[chosen], other[chosen]
    return np.unique(np.minimum(one, other) * MOST + np.maximum(one, other))


def parse_links(lines: Sequence[bytes]) -> tuple[_Numbers, _Numbers, list[int]]:
    """Return the numbers on both sides of links, and which lines (from 0) are no links; these have -1 on both sides.

    Args:
      lines: two numbers with a tab between them.
    """
    content = b"".join(lines)
    marks = np.frombuffer(content, np.uint8)
    marks = marks[(marks == _TAB) | (marks == _NEWLINE)]
    if marks.size == 2 * len(lines) and (marks[0::2] == _TAB).all() and (marks[1::2] == _NEWLINE).all():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of text that holds no numbers
            numbers = np.fromstring(content, np.int64, sep=" ")
        if numbers.size == 2 * len(lines):
            return numbers[0::2], numbers[1::2], []
    parsed = [_parse_link(line) for line in lines]
    numbers = np.array([link or (-1, -1) for link in parsed], np.int64).reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1], [place for place, link in enumerate(parsed) if link is None]


def _parse_link(line: bytes) -> tuple[int, int] | None:
    cells = line.split(b"\t")
    try:
        first, second = int(cells[0]), int(cells[1])
    except (ValueError, IndexError):
        return None
    return (first, second) if 0 <= first < MOST and 0 <= second < MOST else None
