"""Cleaning: one normal form for all text, and the reason why a text or a pair is not kept."""

import html
import re
import unicodedata
from enum import StrEnum

from nmt.config import CleanConfig


class Reason(StrEnum):
    """Why a pair is rejected.

    One reason is counted, in this order: the key language's if it has any, else that of a translation or of the pair.
    """

    EMPTY = "empty"  # nothing but white space on a side
    CONTROL = "control"  # control, private-use or replacement characters, lone surrogates
    PLACEHOLDER = "placeholder"  # markup and code: no human sentence on its own
    TOO_SHORT = "too_short"  # words of the key language
    TOO_LONG = "too_long"  # words of the key language
    FEW_LETTERS = "few_letters"  # numbers, symbols: of the key language
    COPY = "copy"  # both sides are identical: not translated
    LENGTH_RATIO = "length_ratio"  # one side far longer than the other
    DUPLICATE = "duplicate"  # the key language's text was met before
    DIGITS_DUPLICATE = "digits_duplicate"  # it was met before with other digits
    HELD_OUT = "held_out"  # a side also stands in a split that is held out from this one


# Soft hyphen, zero-width space, word joiner, byte-order mark, marks and embeddings of bidirectional text.
# The zero-width (non-)joiners U+200C and U+200D stay: Persian and the Indic scripts are spelt with them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_UNPRINTABLE = frozenset({"Cc", "Co", "Cs"})
_PLACEHOLDER = re.compile(
    r"""
      %\(\w+\)[a-z]                                       # %(name)s
    | %\d                                                 # %1, %1$s
    | %\d*\$?[-+\ 0#]*\d*(?:\.\d+)?l*[sdiufxcg@]          # %s, %-5.2f, %ld, %@; and, harmlessly, `100% done`
    | \$\{ | \$\w                                         # ${name}, $name
    | [{}]                                                # {name}, {{ template }}
    | \[%.*?%\]                                           # [%key:component::common::text%]
    | <[^<>]+>                                            # <b>, </a>, <name>
    | &[#\w]+;                                            # an entity that unescaping does not know
    | \w:// | \bwww\.\S                                   # URL
    | \]\( | \]\[                                         # [Markdown](link), [link][label]
    | `                                                   # `code`
    | \w::\w                                              # key::path
    """,
    re.VERBOSE,
)
_DIGITS = re.compile(r"\d+")


def normalise(text: str) -> str:
    """Return the normal form: entities unescaped, invisible characters removed, NFC, single spaces, none at the ends.

    Idempotent: one step may uncover work for another (`&amp;lt;`), so they are repeated until nothing changes.
    """
    while (changed := _normalise_once(text)) != text:
        text = changed
    return text


def _normalise_once(text: str) -> str:
    visible = _INVISIBLE.sub("", html.unescape(text))
    return " ".join(unicodedata.normalize("NFC", visible).split())


def digit_template(text: str) -> str:
    """Return `text` with every run of digits as a single 0: equal for texts that differ only in digits."""
    return _DIGITS.sub("0", text)


def reject_key(text: str, config: CleanConfig) -> Reason | None:
    """Return why a normalised text of the corpus's key language is not kept, or None if it is."""
    if reason := _reject_text(text):
        return reason
    words = len(text.split())
    if words < config.min_words:
        return Reason.TOO_SHORT
    if words > config.max_words:
        return Reason.TOO_LONG
    letters = sum(map(str.isalpha, text))
    return Reason.FEW_LETTERS if letters < config.min_letters * len(text.replace(" ", "")) else None


def reject_translation(key: str, text: str, config: CleanConfig) -> Reason | None:
    """Return why a normalised translation of `key` (which itself is kept) is not kept, or None if it is.

    Lengths are compared with the key language only, in UTF-8 bytes, also when the pair is one of two translations.
    """
    if reason := _reject_text(text):
        return reason
    if text == key:
        return Reason.COPY
    ratio = len(text.encode()) / len(key.encode())
    return None if 1 / config.max_length_ratio < ratio < config.max_length_ratio else Reason.LENGTH_RATIO


def _reject_text(text: str) -> Reason | None:
    if not text:
        return Reason.EMPTY
    if "\ufffd" in text or (not text.isprintable() and not _UNPRINTABLE.isdisjoint(map(unicodedata.category, text))):
        return Reason.CONTROL
    return Reason.PLACEHOLDER if _PLACEHOLDER.search(text) else None
