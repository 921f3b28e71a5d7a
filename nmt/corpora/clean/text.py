"""Normal forms of text: the one that is stored, and the coarse ones by which duplicates are found."""

import functools
import html
import re
import unicodedata

from nmt.corpora.clean.scripts import UNSPACED_LETTERS

# Soft hyphen, zero-width space, word joiner, byte-order mark, marks and embeddings of bidirectional text.
# The zero-width (non-)joiners U+200C and U+200D stay: Persian and the Indic scripts are spelt with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_DIGITS = re.compile(r"\d+")
_TOKEN = re.compile(f"[{UNSPACED_LETTERS}]|[^\\s{UNSPACED_LETTERS}]+")


def normalise(text: str, form: str = "NFC") -> str:
    """Return the normal form: entities unescaped, invisible characters removed, NFC or NFKC, single spaces.

    Idempotent: one step may uncover work for another (`&amp;lt;`), so they are repeated until nothing changes.
    """
    if text.isascii() and "&" not in text:
        return " ".join(text.split())
    while (changed := _normalise_once(text, form)) != text:
        text = changed
    return text


def _normalise_once(text: str, form: str) -> str:
    visible = _INVISIBLE.sub("", html.unescape(text))
    return " ".join(unicodedata.normalize(form, visible).split())  # type: ignore[arg-type]


def digit_template(text: str) -> str:
    """Return `text` with every run of digits as a single 0: equal for texts that differ only in digits."""
    return _DIGITS.sub("0", text)


def fold(text: str) -> str:
    """Return `text` without what seldom tells sentences apart: digits as a single 0, no case, punctuation as spaces.

    Letters and their marks stay, so that two words of any script are one only if they differ in case or width (NFKC).
    """
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(_DIGITS.sub("0", folded.casefold().translate(_kept())).split())


def tokens(text: str) -> list[str]:
    """Return the words of a folded text; in scripts without spaces, its letters."""
    return _TOKEN.findall(fold(text))


class _Kept(dict[int, str]):
    """For `str.translate`: letters, marks and digits as they are, all else a space; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # The joiners are spelling, as in `normalise`, but one that writers often leave out.
        kept = "" if code in (0x200C, 0x200D) else character
        self[code] = kept if not kept or unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


@functools.cache
def _kept() -> _Kept:
    return _Kept()
