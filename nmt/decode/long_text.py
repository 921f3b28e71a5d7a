"""Splitting text that is longer than the sources of training, and joining the translations of its parts."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nmt.languages import Language

Encode = Callable[[Sequence[str]], list[list[int]]]

_CLOSING = r"[\"'»”’)\]」』》）]*"
# The first whose parts fit is used; a part ends with the white space that follows it.
_BOUNDARIES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"[.!?…։؟۔।॥፧።]+{_CLOSING}\s+|[。！？｡]+{_CLOSING}\s*",  # sentences
        rf"[,;:،؛、，；：–—]{_CLOSING}\s+|[、，；：]{_CLOSING}",  # clauses
        r"\s+",
    )
)
_WITHOUT_SPACES = {"Hani", "Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt"}


class TextPart(NamedTuple):
    """A stretch of text, as pieces."""

    pieces: list[int]
    spaced: bool  # whether white space follows it


def split_text(text: str, longest: int, encode: Encode) -> list[TextPart]:
    """Return the text as parts of at most so many pieces, cut at sentences, else clauses, else spaces, else pieces.

    Cuts are few: neighbours that fit together stay together. Text that fits is one part; blank text has none.
    """
    pieces = encode([text])[0]
    return _split_below(text, pieces, longest, encode, 0) if pieces else []


def _split_below(text: str, pieces: list[int], longest: int, encode: Encode, level: int) -> list[TextPart]:
    spaced = text[-1:].isspace()
    if len(pieces) <= longest:
        return [TextPart(pieces, spaced)]
    if level == len(_BOUNDARIES):
        cuts = range(0, len(pieces), longest)
        return [TextPart(pieces[cut : cut + longest], spaced and cut == cuts[-1]) for cut in cuts]
    groups = _grouped(_units(text, _BOUNDARIES[level]), longest, encode)
    return [
        part
        for group, ids in zip(groups, encode(groups), strict=True)
        for part in _split_below(group, ids, longest, encode, level + 1)
        if part.pieces
    ]


def _units(text: str, boundary: re.Pattern[str]) -> list[str]:
    ends = [match.end() for match in boundary.finditer(text)]
    starts = [0, *ends]
    return [unit for start, end in zip(starts, [*ends, len(text)], strict=True) if (unit := text[start:end])]


def _grouped(units: Sequence[str], longest: int, encode: Encode) -> list[str]:
    """Join neighbours as long as their pieces together fit."""
    groups: list[list[str]] = []
    room = 0
    for unit, pieces in zip(units, encode(units), strict=True):
        if not groups or len(pieces) > room:
            groups.append([])
            room = longest
        groups[-1].append(unit)
        room -= len(pieces)
    return ["".join(group) for group in groups]


def join_translations(
    translations: Sequence[str], parts: Sequence[TextPart], source: Language, target: Language
) -> str:
    """Return the translations of a text's parts as one text, spaced as the target language is written."""
    source_spaces, target_spaces = (language.script not in _WITHOUT_SPACES for language in (source, target))

    def gap(part: TextPart) -> str:
        # Between languages that differ in this, the target's habit counts; else what the source has here.
        return " " if (part.spaced if source_spaces == target_spaces else target_spaces) else ""

    text = "".join(text + gap(part) for text, part in zip(translations, parts, strict=True))
    return text.strip()
