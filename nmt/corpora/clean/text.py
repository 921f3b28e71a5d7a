"""Normal forms of text: the form that is stored, and the coarser ones that find duplicates."""

import functools
import html
import re
import unicodedata

from nmt.corpora.clean.scripts import UNSPACED_LETTERS

# Soft hyphen, zero-width space, word joiner, byte-order mark, marks and embeddings of bidirectional text.
# The zero-width (non-)joiners U+200C and U+200D stay, since Persian and the Indic scripts are spelt with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_DIGITS = re.compile(r"\d+")
_TOKEN = re.compile(f"[{UNSPACED_LETTERS}]|[^\\s{UNSPACED_LETTERS}]+")


def normalise(text: str, form: str = "NFC") -> str:
    """Return the normal form: entities unescaped, invisible characters removed, NFC or NFKC, single spaces.

    Idempotent: the steps are repeated until nothing changes, since one may make work for another (`&amp;lt;`).
    """
    if text.isascii() and "&" not in text:
        return " ".join(text.split())
    while (changed := _normalise_once(text, form)) != text:
        text = changed
    return text


def _normalise_once(text: str, form: str) -> str:
    visible = without_invisible(html.unescape(text))
    return " ".join(unicodedata.normalize(form, visible).split())  # type: ignore[arg-type]


def without_invisible(text: str) -> str:
    """Return `text` without soft hyphens, zero-width spaces, byte-order marks and marks of direction."""
    return _INVISIBLE.sub("", text)


def digit_template(text: str) -> str:
    """Return `text` with every run of digits replaced by 0, so that texts that differ in digits only are equal."""
    return _DIGITS.sub("0", text)


def fold(text: str) -> str:
    """Return `text` in lower case, with runs of digits replaced by 0 and punctuation by spaces.

    Sentences that differ in these only are near duplicates. Letters and their marks stay, so two words are equal only
    if they differ in case or width (NFKC).
    """
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(_DIGITS.sub("0", folded.casefold().translate(_kept())).split())


def fold_words(text: str) -> list[str]:
    """Return the words of a text after `fold`; in scripts without spaces, its letters."""
    return _TOKEN.findall(fold(text))


class _Kept(dict[int, str]):
    """Table for `str.translate`, filled on demand: letters, marks and digits stay, all else becomes a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # The joiners, which `normalise` keeps, are dropped: writers often leave them out.
        kept = "" if code in (0x200C, 0x200D) else character
        self[code] = kept if not kept or unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


@functools.cache
def _kept() -> _Kept:
    return _Kept()
