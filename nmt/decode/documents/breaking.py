"""Breaking the text of a subtitle into lines of about the same width."""

import itertools
import textwrap
import unicodedata
from collections.abc import Sequence

WIDEST = 42  # columns of a line; the usual limit of subtitles in scripts with spaces, and 21 wide characters
_MOST = 200  # units of a text that is broken evenly, which takes time with the square of their number
_NOT_FIRST = frozenset("、。，．！？；：）」』】》〉”’…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ!?,.;:)")


def break_lines(text: str, before: Sequence[str]) -> list[str]:
    """Return a text as lines, as many as the text that it replaces had, if that makes sense.

    What fits the widest line of the former text, or is a single word, is one line; what would be wider than 42 columns,
    and wider than the former lines, gets more lines. All have about the same width.

    Args:
      text: the text, with no line break.
      before: the lines of the text that it replaces.
    """
    widest = max(map(_width, before))
    if (len(before) < 2 and _width(text) <= WIDEST) or (_width(text) <= widest and len(before) > 1):
        return [text]
    units = _units(text)
    if len(units) > _MOST:
        return textwrap.wrap(text, WIDEST, break_on_hyphens=False)
    lines = [text]
    for count in range(min(len(before), len(units)), len(units) + 1):
        lines = _balanced(units, count)
        if max(map(_width, lines)) <= max(WIDEST, widest):
            break
    return lines


def _units(text: str) -> list[str]:
    """Return the stretches that stay on one line: words, and characters of scripts without spaces."""
    units: list[str] = []
    for word in text.split(" "):
        start = len(units)
        for character in word:
            glued = _columns(character) < 2 and units[start:] and _columns(units[-1][-1:]) < 2
            if units[start:] and (glued or character in _NOT_FIRST or unicodedata.combining(character)):
                units[-1] += character
            else:
                units.append(character)
        if units[start:]:
            units[-1] += " "
    return units or [text]


def _balanced(units: Sequence[str], count: int) -> list[str]:
    """Return so many lines whose widest is as narrow as can be; the later ones are the longer where there is choice."""
    ends = list(itertools.accumulate(map(_width, units)))
    best = {len(units): 0}  # least width of the widest line, of the units from here on
    cut: list[dict[int, int]] = []
    for _ in range(count):
        found: dict[int, int] = {}
        cuts: dict[int, int] = {}
        for start in range(len(units)):
            before = ends[start - 1] if start else 0
            options = [(max(ends[end - 1] - before, width), end) for end, width in best.items() if end > start]
            if options:
                found[start], cuts[start] = min(options)
        best = found
        cut.append(cuts)
    lines, start = [], 0
    for cuts in reversed(cut):
        lines.append("".join(units[start : cuts[start]]).rstrip(" "))
        start = cuts[start]
    return lines


def _width(text: str) -> int:
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
