"""Dividing aligned texts further: into paragraphs, and into sentences where both sides have as many."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nmt.corpora.readers.reader import Row
from nmt.corpora.readers.tables import TableReader

# What parts of a text are joined with; no paragraph holds one.
PARAGRAPH = "\n"
# A sentence ends at such a mark where white space and a letter that is no small one follow; at a wide one, always.
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\W\d_a-zа-яё])|(?<=[。！？])")

Fallback = Literal["first", "all"]


class DividedReader(TableReader):
    """Tables whose texts are paragraphs, to be divided."""

    fallback: Fallback
    sentences: bool

    def _rows(self, wanted: frozenset[str]) -> Iterator[Row]:
        for row in super()._rows(wanted):
            yield from divide(row, self.fallback, self.sentences)


def divide(row: Row, fallback: Fallback, sentences: bool) -> Iterator[Row]:
    """Yield the paragraphs of a row, or its sentences, each with those translations that are divided alike.

    Args:
      row: a row whose texts are paragraphs, joined by `PARAGRAPH`.
      fallback: what stands for a text whose translation has another number of paragraphs: its first, or all of them.
      sentences: divide paragraphs into sentences where both sides have as many.
    """
    paragraphs = row.text.split(PARAGRAPH)
    groups: dict[bool, dict[str, list[str]]] = defaultdict(dict)
    for language, text in row.translations.items():
        parts = text.split(PARAGRAPH)
        groups[len(parts) == len(paragraphs)][language] = parts
    alike, others = groups[True], groups[False]
    if alike:
        for place, paragraph in enumerate(paragraphs):
            translations = {language: parts[place] for language, parts in alike.items()}
            part = Row(row.language, row.component, (*row.key, str(place)), paragraph, translations)
            yield from _sentences(part) if sentences else (part,)
    if others:
        whole = {language: _fall_back(parts, fallback) for language, parts in others.items()}
        yield Row(row.language, row.component, (*row.key, fallback), _fall_back(paragraphs, fallback), whole)


def _sentences(row: Row) -> Iterator[Row]:
    parts = split_sentences(row.text)
    divided: dict[str, list[str]] = {}
    whole: dict[str, str] = {}
    for language, text in row.translations.items():
        if len(parts) > 1 and len(found := split_sentences(text)) == len(parts):
            divided[language] = found
        else:
            whole[language] = text
    if divided:
        for place, part in enumerate(parts):
            yield Row(row.language, row.component, (*row.key, str(place)), part, _pick(divided, place))
    if whole or not divided:
        yield Row(row.language, row.component, row.key, row.text, whole)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text: a rough division, for both sides alike."""
    return [part for part in _SENTENCE.split(text) if part and not part.isspace()]


def _pick(parts: Mapping[str, Sequence[str]], place: int) -> dict[str, str]:
    return {language: texts[place] for language, texts in parts.items()}


def _fall_back(paragraphs: Sequence[str], fallback: Fallback) -> str:
    return paragraphs[0] if fallback == "first" else " ".join(paragraphs)
