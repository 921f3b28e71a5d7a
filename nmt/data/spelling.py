"""The spelling of texts for SentencePiece: a stand-in for the character that it uses for spaces.

SentencePiece writes spaces as U+2581, and would read that character of a text as one. A text that has it is segmented
with a noncharacter in its place, which no piece has, so that it becomes bytes; these are then replaced by the bytes of
the character.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

_SPACE = "\u2581"
_STAND_INS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


class Spelling(NamedTuple):
    """A text on one line, with a stand-in for U+2581 if it has that character."""

    text: str
    stand_in: str  # empty: there is none

    @classmethod
    def choose(cls, text: str) -> Self:
        """Return the spelling of a text."""
        line = one_line(text)
        if _SPACE not in line:
            return cls(line, "")
        stand_in = next((one for one in _STAND_INS if one not in line), _STAND_INS[0])
        return cls(line.replace(_SPACE, stand_in), stand_in)

    def restore(self, ids: list[int], byte: Callable[[int], int]) -> list[int]:
        """Return the ids of the spelling as those of the text; `byte` gives the id of a byte."""
        if not self.stand_in:
            return ids
        before, after = ([byte(value) for value in one.encode()] for one in (self.stand_in, _SPACE))
        for place in range(len(ids) - len(before) + 1):
            if ids[place : place + len(before)] == before:
                ids[place : place + len(before)] = after
        return ids


def one_line(text: str) -> str:
    """Return the text on one line, valid as UTF-8."""
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
