"""Splitting text that is longer than the sources of training, and joining the translations of its parts."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sentencex

from nmt.languages import Language

Encode = Callable[[Sequence[str]], list[list[int]]]
Divide = Callable[[str], list[str]]  # a text into stretches that are the text when joined

# A clause ends with the white space that follows it.
_CLAUSE = re.compile(r"[,;:،؛、，；：–—][\"'»”’)\]」』》）]*\s+|[、，；：][\"'»”’)\]」』》）]*")
_SPACE = re.compile(r"\s+")
_WITHOUT_SPACES = {"Hani", "Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt"}


class TextPart(NamedTuple):
    """A stretch of text, as pieces. The texts of all parts, each with the space after it, are the whole text."""

    text: str
    space: str  # the white space that follows
    pieces: list[int]


def split_text(text: str, longest: int, encode: Encode, language: str) -> list[TextPart]:
    """Return the text as parts of at most so many pieces.

    It is cut at the ends of sentences, else at those of clauses, else at spaces, else between characters. Cuts are few:
    neighbours that fit together stay together. Text that fits is one part; blank text has none.

    Args:
      text: the text.
      longest: most pieces of a part.
      encode: the pieces of texts.
      language: its language (canonical code), whose rules say where sentences end; other languages have general rules.
    """
    pieces = encode([text])[0]
    code = language.partition("-")[0]
    levels = (lambda one: _sentences(one, code), _clauses, _words, _halves)
    return _split_below(text, pieces, longest, encode, levels) if pieces else []


def _sentences(text: str, code: str) -> list[str]:
    """Return a text as its sentences, each with the white space that follows.

    The splitter takes UTF-8 only, which has no place for half a surrogate pair, as JSON may hold: "?" stands for it.
    """
    sentences, end = [], 0
    for sentence in sentencex.segment(code, text.encode(errors="replace").decode()):
        sentences.append(text[end : end + len(sentence)])
        end += len(sentence)
    return sentences


def _split_below(
    text: str, pieces: list[int], longest: int, encode: Encode, levels: Sequence[Divide]
) -> list[TextPart]:
    if len(pieces) <= longest:
        bare = text.rstrip()
        return [TextPart(bare, text[len(bare) :], pieces)]
    if len(levels) == 1 and len(text) == 1:
        return _cut_character(text, pieces, longest)
    units = levels[0](text)
    groups = _grouped(units, longest, encode) if len(levels) > 1 else units
    below = levels[1:] or levels
    parts: list[TextPart] = []
    before = ""
    for group, ids in zip(groups, encode(groups), strict=True):
        if ids:
            first, *others = _split_below(group, ids, longest, encode, below)
            parts += [first._replace(text=before + first.text), *others]
            before = ""
        elif parts:  # white space: it stays with the part before
            parts[-1] = parts[-1]._replace(space=parts[-1].space + group)
        else:
            before += group
    return parts


def _cut_character(character: str, pieces: list[int], longest: int) -> list[TextPart]:
    """Return the pieces of one character, which some rules of normalisation make a whole phrase, as parts."""
    slices = [pieces[cut : cut + longest] for cut in range(0, len(pieces), longest)]
    return [TextPart("" if number else character, "", one) for number, one in enumerate(slices)]


def _clauses(text: str) -> list[str]:
    return _divided(text, [match.end() for match in _CLAUSE.finditer(text)])


def _words(text: str) -> list[str]:
    return _divided(text, [match.end() for match in _SPACE.finditer(text)])


def _halves(text: str) -> list[str]:
    """Return the halves of a text; marks stay with their letter where there is another place to cut."""
    middle = len(text) // 2
    places = [i for i in range(1, len(text)) if unicodedata.category(text[i])[0] != "M"] or range(1, len(text))
    return _divided(text, [min(places, key=lambda place: abs(place - middle))])


def _divided(text: str, ends: Sequence[int]) -> list[str]:
    return [unit for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if (unit := text[start:end])]


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
    spaces = part_spaces(parts, source, target)
    return "".join(text + space for text, space in zip(translations, spaces, strict=True)).strip()


def part_spaces(parts: Sequence[TextPart], source: Language, target: Language) -> list[str]:
    """Return the space, or nothing, that follows the translation of each part."""
    source_spaces, target_spaces = (language.script not in _WITHOUT_SPACES for language in (source, target))
    # Between languages that differ in this, the target's habit counts; else what the source has here.
    return [" " if (bool(part.space) if source_spaces == target_spaces else target_spaces) else "" for part in parts]
