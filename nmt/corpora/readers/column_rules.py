"""Rules by which names of columns, content and first lines are told apart, so that none is taken for another.

Many codes of languages are also usual names of columns: `id` is Indonesian, `no` Norwegian, `mt` Maltese, `is`, `it`,
`as`, `or`, `to`, `ts`, `os`, `ms`, `lat`, `min`, `cat` are languages too. A column that nobody declared is one of a
language only if it has text. A first line may be text where names were expected, and names where text was.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from nmt.corpora.readers.files import canonical_code

Side = Literal["source", "target", ""]

SIDES: tuple[Side, Side] = ("source", "target")
SIDE_NAMES: Mapping[Side, tuple[str, ...]] = {"source": ("source", "src"), "target": ("target", "tgt", "trg")}
HAS_NO_TEXT = "column that is named like a language and has no text"
HEADING = "first line that names the columns (say header: true)"
TEXT_AS_NAMES = "first line that is taken for names of columns and reads as text (header: true)"

_IDENTIFIER = re.compile(r"[!-~]*[0-9_/\\:@#=<>|{}\[\]+*][!-~]*")
_NO_WORDS = frozenset(("true", "false", "yes", "no", "none", "null", "nan", "n/a", "na"))
# Columns beside which `mt` is machine translation, as data of quality estimation have it.
_BESIDE_MT = frozenset(("src", "source", "ref", "reference", "pe", "post_edit", "hyp", "hypothesis", "hter", "score"))
_SENTENCE_END = re.compile(r"[.!?。！？।።؟]\W*$")
_NAME_WORDS = 6  # a name of a column has no more words

_TARGET_WORDS = frozenset((*SIDE_NAMES["target"], "target_text", "target text", "translation", "reference", "ref"))
_SOURCE_WORDS = frozenset((*SIDE_NAMES["source"], "source_text", "source text", "original"))
_FEWEST_WORDS = 3  # of a column of single words: in one or two rows they may well translate several words
_TEXT_WORDS = frozenset(("text", "sentence", "sentence1", "sentence2", "segment"))
_OTHER_WORDS = frozenset(("id", "score", "url", "domain", "doc", "document", "doc_id", "index", "idx", "line", "no"))


def is_column_of_text(name: str, values: Iterable[Any], names: Iterable[str]) -> bool:
    """Return whether a column that is named like a language has text of it, as far as its first values say.

    Args:
      name: of the column.
      values: its first values; empty ones say nothing.
      names: of all columns.
    """
    if name.casefold() == "mt" and _BESIDE_MT & {other.casefold() for other in names}:
        return False
    given = [value for value in values if value is not None and value != ""]
    return not given or 2 * sum(isinstance(value, str) and is_text(value) for value in given) >= len(given)


def are_identifiers(values: Sequence[Any], others: Sequence[Sequence[Any]]) -> bool:
    """Return whether values are single words of ASCII while most of those of the other columns are several words."""
    words = [len(value.split()) > 1 for column in others for value in column if isinstance(value, str) and value]
    given = [value for value in values if isinstance(value, str) and value]
    single = len(given) >= _FEWEST_WORDS and all(value.isascii() and len(value.split()) == 1 for value in given)
    return single and bool(words) and 2 * sum(words) > len(words)


def is_text(value: str) -> bool:
    """Return whether a value is text rather than a number, an identifier, a path, a flag or the code of a language."""
    value = value.strip()
    if not any(character.isalpha() for character in value) or (len(value) == 1 and value.isascii()):
        return False
    if len(value.split()) > 1:
        return True
    if value.casefold() in _NO_WORDS or _IDENTIFIER.fullmatch(value):
        return False
    return not (len(value) <= 3 and value.isascii() and canonical_code(value))


def reads_as_text(name: str) -> bool:
    """Return whether the name of a column reads as a sentence, so that the row of names may be text."""
    return bool(_SENTENCE_END.search(name)) or len(name.split()) > _NAME_WORDS


def match_heading(cells: Sequence[str], languages: Sequence[str], sides: Sequence[Side]) -> bool | None:
    """Return whether the names of columns say what the declaration says of them; None: they say nothing.

    Args:
      cells: names, or what may be names, of the columns that are used.
      languages: canonical codes of these columns by the declaration.
      sides: which side of a direction each is.
    """
    found = [
        _match_name(cell, language, side, languages)
        for cell, language, side in zip(cells, languages, sides, strict=True)
    ]
    # In a dictionary "German" stands beside "Deutsch": two columns are not called alike.
    called = [canonical_code(cell) or cell.strip().casefold() for cell in cells]
    if None in found or len(set(called)) < len(called):
        return None
    known = [cell for cell in cells if cell.strip().casefold() not in _TEXT_WORDS | _OTHER_WORDS]
    return all(found) if known else None


def _match_name(cell: str, language: str, side: Side, languages: Sequence[str]) -> bool | None:
    word = cell.strip().casefold()
    if word in _TEXT_WORDS:
        return True
    if word in _SOURCE_WORDS:
        return side != "target"
    if word in _TARGET_WORDS:
        return side != "source"
    named = canonical_code(cell)
    if named == language:
        return True
    return False if word in _OTHER_WORDS or named in languages else None
