"""The pieces of a vocabulary as the bytes they write, and every way to write a phrase in pieces.

A phrase may be written in many ways: with and without the mark of a space before it, in larger or smaller pieces, or
with its first or last piece reaching beyond it. `PhraseLattice` has them all, so that a phrase is recognised however it
is written.
"""

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nmt.data.vocab import Vocabulary
from nmt.decode.steering.words import is_word_character
from nmt.errors import UserError

_MOST_CACHED = 4096


class LatticeEdge(NamedTuple):
    """A piece that leads from one place of a phrase to another; places are bytes of it that are written."""

    source: int  # 0 is the beginning; `LEAD` stands before text of the piece that does not belong to the phrase
    target: int  # the length of the phrase is its end; `BEYOND` the end with text after it
    token: int


LEAD, BEYOND = -1, -2


@dataclass(frozen=True)
class PhraseLattice:
    """The ways to write a phrase.

    Attributes:
      length: bytes of the phrase.
      edges: the pieces.
      remaining: pieces that are left by place, on the ways that the vocabulary itself would segment the phrase.
      longest: pieces of the longer of these ways.
      whole_start: whether no word may be open before the phrase.
      whole_end: whether the word must end after the phrase.
    """

    length: int
    edges: tuple[LatticeEdge, ...]
    remaining: dict[int, int]
    longest: int
    whole_start: bool
    whole_end: bool


class PieceTable:
    """The bytes that the tokens of a vocabulary write.

    Args:
      vocabulary: the vocabulary of targets.

    Attributes:
      opens_word: bool [V], tokens that begin with a character of a word and go on with the word before.
      closes_word: bool [V], tokens that end with a character of a word.
      rank: int32 [V], places of the tokens in the order of what they write, the same for those that write the same.
      size: int32 [V], bytes that they write.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self.written = vocabulary.written_bytes()
        self._by_bytes: dict[bytes, list[int]] = {}
        for token, written in enumerate(self.written):
            if written:
                self._by_bytes.setdefault(written, []).append(token)
        self._sorted = sorted(self._by_bytes)
        self._reversed = sorted(written[::-1] for written in self._by_bytes)
        self._longest = max(map(len, self._sorted), default=0)
        self.opens_word = np.array([_edge_is_word(written, first=True) for written in self.written], bool)
        self.closes_word = np.array([_edge_is_word(written, first=False) for written in self.written], bool)
        self.rank = np.array([bisect.bisect_left(self._sorted, w) if w else -1 for w in self.written], np.int32)
        self.size = np.array([len(written) for written in self.written], np.int32)
        self.lattice = functools.lru_cache(_MOST_CACHED)(self._lattice)

    def encode(self, phrase: str) -> list[int]:
        """Return the pieces of a phrase at the beginning of a word.

        Raises:
          UserError: the vocabulary cannot write the phrase.
        """
        tokens = self._vocabulary.encode([phrase])[0]
        self._check(tokens, b" " + phrase.encode(), phrase)
        return tokens

    def encode_inside(self, phrase: str) -> list[int]:
        """Return the pieces of a phrase where no space is before it.

        Raises:
          UserError: the vocabulary cannot write the phrase.
        """
        tokens = self._vocabulary.encode_inside(phrase)
        self._check(tokens, phrase.encode(), phrase)
        return tokens

    def _check(self, tokens: list[int], wanted: bytes, phrase: str) -> None:
        written = b"".join(self.written[token] for token in tokens)
        if written != wanted:
            became = written.decode(errors="replace").strip()
            raise UserError(f"the vocabulary cannot write {phrase!r}: it becomes {became!r}")

    def within(self, text: bytes) -> list[int]:
        """Return the tokens that write some of the beginning of `text`, and not all of it."""
        stops = range(1, min(len(text), self._longest + 1))
        return [token for stop in stops for token in self._by_bytes.get(text[:stop], ())]

    def ranks(self, prefix: bytes) -> tuple[int, int]:
        """Return the ranks, from and below, of the tokens that begin with `prefix`, which is not empty."""
        beyond = prefix[:-1] + bytes([prefix[-1] + 1])  # a byte of UTF-8 is less than 255
        return bisect.bisect_left(self._sorted, prefix), bisect.bisect_left(self._sorted, beyond)

    def begins(self, prefix: bytes) -> Iterator[int]:
        """Yield the tokens that write more than `prefix` and begin with it."""
        for place in range(bisect.bisect_right(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[place].startswith(prefix):
                return
            yield from self._by_bytes[self._sorted[place]]

    def ends(self, suffix: bytes) -> Iterator[int]:
        """Yield the tokens that write more than `suffix` and end with it."""
        reverse = suffix[::-1]
        for place in range(bisect.bisect_right(self._reversed, reverse), len(self._reversed)):
            if not self._reversed[place].startswith(reverse):
                return
            yield from self._by_bytes[self._reversed[place][::-1]]

    def _lattice(self, phrase: str, whole: bool = True, open_end: bool = False) -> PhraseLattice:
        """Return the ways to write a phrase.

        Args:
          phrase: one or more words, in normal form.
          whole: whether it must not cut words at its edges.
          open_end: whether any ending may follow, even so.

        Raises:
          UserError: the vocabulary cannot write the phrase.
        """
        text = phrase.encode()
        whole_start = whole and is_word_character(phrase[0])
        whole_end = whole and not open_end and is_word_character(phrase[-1])
        remaining, longest = self._canonical(phrase)
        edges = {*self._within(text), *self._beyond(text, whole_end, remaining), *self._before(text, whole_start)}
        for written in self._sorted:
            begin = written.find(text, 1)
            if 0 < begin < len(written) - len(text):
                inside = not (whole_start and _edge_is_word(written[:begin], first=False))
                if inside and not (whole_end and _edge_is_word(written[begin + len(text) :], first=True)):
                    edges.update(LatticeEdge(LEAD, BEYOND, token) for token in self._by_bytes[written])
        if 0 in remaining:  # the mark of a space is a piece of its own
            edges.update(LatticeEdge(LEAD, 0, token) for token in self._by_bytes[b" "])
        useful = _useful(edges, len(text))
        return PhraseLattice(len(text), useful, remaining, longest, whole_start, whole_end)

    def _canonical(self, phrase: str) -> tuple[dict[int, int], int]:
        """Return the pieces that are left by place, where the vocabulary segments the phrase, and most pieces."""
        remaining: dict[int, int] = {}
        paths = ((self.encode(phrase), -1), (self.encode_inside(phrase), 0))
        for tokens, place in paths:
            for number, token in enumerate(tokens, start=1):
                place += len(self.written[token])
                remaining[place] = min(remaining.get(place, len(tokens)), len(tokens) - number)
        return remaining, max(len(tokens) for tokens, _ in paths)

    def _within(self, text: bytes) -> Iterator[LatticeEdge]:
        for start in range(len(text)):
            for end in range(start + 1, min(len(text), start + self._longest) + 1):
                yield from (LatticeEdge(start, end, token) for token in self._by_bytes.get(text[start:end], ()))

    def _beyond(self, text: bytes, whole_end: bool, remaining: dict[int, int]) -> Iterator[LatticeEdge]:
        for start in range(len(text)):
            rest = text[start:]
            for token in self.begins(rest):
                goes_on = _edge_is_word(self.written[token][len(rest) :], first=True)
                # A phrase with an open end that is written in unusual pieces may stay unrecognised: there are too many.
                if not goes_on or (not whole_end and (start == 0 or start in remaining)):
                    yield LatticeEdge(start, BEYOND, token)

    def _before(self, text: bytes, whole_start: bool) -> Iterator[LatticeEdge]:
        for end in range(1, len(text) + 1):
            for token in self.ends(text[:end]):
                if not (whole_start and _edge_is_word(self.written[token][:-end], first=False)):
                    yield LatticeEdge(LEAD, end, token)


def _edge_is_word(written: bytes, *, first: bool) -> bool:
    """Return whether the first or last character of bytes belongs to a word; part of a character does not."""
    try:
        text = written.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and is_word_character(text[0 if first else -1])


def _useful(edges: set[LatticeEdge], length: int) -> tuple[LatticeEdge, ...]:
    """Return the edges on ways from a beginning of the phrase to its end."""
    reached, leading = {LEAD, 0}, {length, BEYOND}
    for edge in sorted(edges):
        if edge.source in reached:
            reached.add(edge.target)
    for edge in sorted(edges, reverse=True):
        if edge.target in leading:
            leading.add(edge.source)
    return tuple(sorted(edge for edge in edges if edge.source in reached and edge.target in leading))
