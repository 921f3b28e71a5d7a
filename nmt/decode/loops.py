"""Loops: translations that repeat a letter, a syllable, a word or a phrase which their source does not repeat.

A model that is lost says the same again and again: `Offffffft`, `Doorororor`, `the device to the device to the device`.
Text repeats itself, too (`hahaha`, `no, no, no`, `.......`), so a translation is compared with its source: what is
found in one must be found in the other far more often. Digits are left out, since they are compared by themselves.
"""

import functools
import re
import unicodedata
from typing import NamedTuple

# Least repetitions in a row by the length of what is repeated, in characters without spaces: "Schifffahrt" has three
# letters and Tagalog "nakakakain" three syllables, and no language is known to have four.
_RUNS = (
    re.compile(r"([^ ])\1{3,}"),
    re.compile(r"([^ ]{2,3}?)\1{3,}"),
    re.compile(r"([^ ]{4,120}?)\1{2,}"),
)
_SOURCE_RUNS = (re.compile(r"([^ ]{1,120}?)\1{2,}"),)
_WORD = re.compile(r"[^\W_]+")
# No phrase goes beyond these: a sentence may begin with the last words of that before it.
_PHRASE_END = re.compile(r"[.!?:;…()\[\]{}<>*|/。！？；：।]")
LONGEST_PHRASE = 12  # words of a phrase that is said twice in a row
SHORTEST_PHRASE = 8  # its letters; a source's may have fewer


class Loop(NamedTuple):
    """A stretch of text that is repeated in a row."""

    unit: str  # in small letters, and without spaces unless it is a phrase
    times: int


def find_loop(source: str, translation: str) -> Loop | None:
    """Return the longest loop of a translation that its source does not explain, or None.

    A loop is a letter or sign at least four times in a row, two or three of them four times, more of them three times,
    or a phrase of two words or more twice. It counts if the source repeats nothing of its kind (letters, or other
    signs) half as often.
    """
    for kind, text in enumerate(_letters_and_signs(translation)):
        patterns = _RUNS if _has_equal_stretches(text) else _RUNS[:-1]
        found = max(_runs(patterns, text), key=lambda loop: loop.times, default=None)
        if found:
            source_text = _letters_and_signs(source)[kind]
            usual = max((loop.times for loop in _runs(_SOURCE_RUNS, source_text)), default=1)
            if found.times > 2 * usual:
                return found
    phrase = _repeated_phrase(translation, SHORTEST_PHRASE)
    return phrase if phrase and not _repeated_phrase(source, 1) else None


def _has_equal_stretches(text: str) -> bool:
    """Return whether a text can have four or more characters three times in a row, which takes long to look for.

    Then at least five of its stretches of four characters were there before.
    """
    count = len(text) - 3
    return count - len({text[start : start + 4] for start in range(count)}) >= 5 if count > 0 else False


def _runs(patterns: tuple[re.Pattern[str], ...], text: str) -> list[Loop]:
    return [Loop(match[1], len(match[0]) // len(match[1])) for pattern in patterns for match in pattern.finditer(text)]


def _repeated_phrase(text: str, shortest: int) -> Loop | None:
    """Return the longest phrase of at least two words, and of so many letters, that follows itself."""
    found = (_doubled(_WORD.findall(part), shortest) for part in _PHRASE_END.split(text.casefold()))
    return max(filter(None, found), key=lambda loop: len(loop.unit), default=None)


def _doubled(words: list[str], shortest: int) -> Loop | None:
    if len(words) - len(set(words)) < 2:
        return None
    for length in range(min(LONGEST_PHRASE, len(words) // 2), 1, -1):
        for start in range(len(words) - 2 * length + 1):
            phrase = words[start : start + length]
            if words[start + length : start + 2 * length] == phrase and _is_phrase(phrase, shortest):
                return Loop(" ".join(phrase), 2)
    return None


def _is_phrase(words: list[str], shortest: int) -> bool:
    letters = "".join(words)
    return len(letters) >= shortest and not any(map(str.isdigit, letters))


def _letters_and_signs(text: str) -> tuple[str, str]:
    """Return the small letters of a text with their marks, and its other signs, both without white space.

    A space stands where no loop goes beyond: for a digit, and in the signs for a letter.
    """
    folded = text.casefold()
    return folded.translate(_kept_letters()), folded.translate(_kept_signs())


class _Kept(dict[int, str]):
    """Table for `str.translate`, filled on demand, that keeps letters and their marks, or the other signs."""

    def __init__(self, letters: bool) -> None:
        super().__init__()
        self._letters = letters

    def __missing__(self, code: int) -> str:
        kind = unicodedata.category(chr(code))[0]
        if kind == "N":
            kept = " "
        elif kind in "LM":
            kept = chr(code) if self._letters else " "
        else:
            kept = "" if self._letters or kind in "ZC" else chr(code)
        self[code] = kept
        return kept


@functools.cache
def _kept_letters() -> _Kept:
    return _Kept(letters=True)


@functools.cache
def _kept_signs() -> _Kept:
    return _Kept(letters=False)
