"""Lines that a vocabulary does not give back unchanged, and the characters that they lose."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from nmt.data.vocab import Vocabulary


class RoundTrip(NamedTuple):
    """Lines that were encoded and decoded, and how many came back changed.

    Attributes:
      changed: how many lines did not come back as they were.
      lost: the characters that were not there any more, with how often, most frequent first.
    """

    changed: int
    lost: dict[str, int]


def round_trip(vocabulary: Vocabulary, lines: Sequence[str], encoded: Sequence[Sequence[int]]) -> RoundTrip:
    """Compare lines with their pieces, `encoded`, decoded again; white space is compared as single spaces."""
    changed, lost = 0, Counter[str]()
    for line, back in zip(lines, vocabulary.decode(encoded), strict=True):
        line = " ".join(line.split())
        if back != line:
            changed += 1
            lost += _lost_characters(line, back)
    return RoundTrip(changed, dict(sorted(lost.items(), key=lambda item: (-item[1], item[0]))))


def _lost_characters(line: str, back: str) -> Counter[str]:
    """Return the characters of a line that came back fewer times, or if all came back, those that were moved."""
    fewer = Counter(line) - Counter(back)
    return fewer or Counter(one for one, other in zip(line, back, strict=False) if one != other)


def name_character(character: str) -> str:
    """Return a character by code point and name, such as U+00B3 SUPERSCRIPT THREE."""
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
