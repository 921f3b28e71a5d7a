"""Words in text: where a term begins and ends, in languages with and without spaces, and in which case it is written.

A term that begins or ends with a letter of a script that separates words does so at a word's boundary. Letters of
scripts without spaces, such as Chinese or Thai, have a boundary on either side.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

from nmt.corpora.clean.scripts import UNSPACED_LETTERS

_UNSPACED = re.compile(f"[{UNSPACED_LETTERS}]")


@functools.cache
def is_word_character(character: str) -> bool:
    """Return whether a character belongs to the word beside it: letters, their marks, digits, the underscore."""
    if _UNSPACED.match(character):
        return False
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def is_whole(text: str, start: int, end: int, *, open_end: bool = False) -> bool:
    """Return whether text[start:end] cuts no word: a word character at its edge has none beside it.

    Args:
      text: the text around.
      start: where the stretch begins.
      end: where it ends, after `start`.
      open_end: whether more letters may follow it.
    """
    before = start > 0 and is_word_character(text[start - 1]) and is_word_character(text[start])
    after = end < len(text) and is_word_character(text[end - 1]) and is_word_character(text[end])
    return not before and (open_end or not after)


def find_whole(text: str, term: str) -> Iterator[tuple[int, int]]:
    """Yield where a term stands in a text as whole words, from left to right, without overlaps."""
    start = text.find(term) if term else -1
    while start >= 0:
        end = start + len(term)
        whole = is_whole(text, start, end)
        if whole:
            yield start, end
        start = text.find(term, end if whole else start + 1)


def lower_each(text: str) -> str:
    """Return the text in lower case, character by character, so that places in it stay as they are."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(low if len(low := c.lower()) == 1 else c for c in text)


def capitalise(text: str) -> str:
    """Return the text with its first character in title case; the others stay."""
    return text[:1].title() + text[1:] if len(text[:1].title()) == 1 else text


def is_in_capitals(text: str) -> bool:
    """Return whether a text is written in capitals throughout, with more than one of them."""
    return text.isupper() and sum(map(str.isupper, text)) > 1
