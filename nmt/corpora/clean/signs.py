"""Signs that a corpus is not the text that it is taken for, of which a person is warned.

Text may have been tokenised, as by the scripts of Moses, or cut into the pieces of a vocabulary, as by subword-nmt
(`kno@@ wn`) or SentencePiece (`▁known`); Chinese may be in the other of its two scripts; a line may be several columns.
A vocabulary learns such marks as if they were text, and translations come out with them.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from nmt.corpora.clean.han import HAN_NAMES, HAN_SCRIPTS, han_share
from nmt.corpora.clean.scripts import writing

_PIECES = re.compile(r"\S@@(?:\s|$)|\u2581")
# Marks of Moses: split hyphens, escaped quotation marks, and full stops and commas with a space before them. Other
# punctuation has a space there in French.
_TOKENISED = re.compile(r"\s@-@\s|(?:^|\s)&(?:apos|quot);|\w [.,](?=\s|$)")
_MARKS = (" .", " ,", "&apos;", "&quot;", "@-@")  # every text that it matches has one; looking for them is quick
# Words with spaces between them in scripts that have none.
_SEGMENTED = re.compile(r"(?:[\u3040-\u30ff\u3400-\u9fff]{1,4} ){3}[\u3040-\u30ff\u3400-\u9fff]")
_FEWEST_SPACES = 3
_UNSPACED_HAN = frozenset({"Hans", "Hant", "Jpan"})
_LEAST_HAN = 0.3  # the default of data.clean.min_script
_EXAMPLE = 60  # letters of an example


class Sign(StrEnum):
    """A sign that a text is not what it is taken for."""

    PIECES = "pieces"
    TOKENISED = "tokenised"
    CHINESE = "chinese_script"
    COLUMNS = "columns"


# Least share of the texts with a sign of which a person is warned: some of a normal corpus have a space before a comma.
_LEAST = {Sign.PIECES: 0.01, Sign.TOKENISED: 0.2, Sign.CHINESE: 0.01, Sign.COLUMNS: 0.5}


class SignCount(NamedTuple):
    """The texts of a corpus in a language that have a sign."""

    corpus: str
    language: str
    sign: Sign
    texts: int
    total: int  # texts in this language
    example: str

    @property
    def warns(self) -> bool:
        """Whether so many have the sign that a person is warned."""
        return self.texts >= _LEAST[self.sign] * self.total

    def __str__(self) -> str:
        """Return the warning about a corpus."""
        return f"{self.finding}; {self._advice()}"

    @property
    def finding(self) -> str:
        """The finding alone, for text that is not cleaned."""
        share = f"{self.texts:,} of {self.total:,} texts ({100 * self.texts / self.total:.0f}%)"
        shown = self.example if len(self.example) <= _EXAMPLE else f"{self.example[:_EXAMPLE]}..."
        return f"{self.corpus}, {self.language}: {share} {self._finding()}, such as {shown!r}"

    def _finding(self) -> str:
        match self.sign:
            case Sign.PIECES:
                return "are cut into subwords"
            case Sign.TOKENISED:
                return "are tokenised"
            case Sign.COLUMNS:
                return "have tabs"
            case Sign.CHINESE:
                return f"are in {HAN_NAMES[_other(self.language)]} characters"

    def _advice(self) -> str:
        match self.sign:
            case Sign.PIECES:
                return "undo it: delete `@@ `, or delete all spaces and then replace `▁` by a space"
            case Sign.TOKENISED:
                return "the vocabulary needs no tokenisation: detokenise it, or take the corpus as it was before"
            case Sign.COLUMNS:
                return "if these are columns, such as of identifiers, read them with read.kind: tsv"
            case Sign.CHINESE:
                return (
                    "they are rejected; if the corpus is in that script, say so under languages:, such as "
                    f"`languages: {{zh: zh-{_other(self.language)}}}`"
                )


def _other(language: str) -> str:
    """Return the script of Chinese in which a language is not written."""
    return next(script for script in HAN_SCRIPTS if script != writing(language).script)


def find_signs(text: str, language: str) -> Iterator[Sign]:
    """Yield the signs of a text as it was read (entities and all), in a language (canonical code)."""
    script = writing(language).script
    if ("@@" in text or "\u2581" in text) and _PIECES.search(text):
        yield Sign.PIECES
    marked = any(mark in text for mark in _MARKS) and _TOKENISED.search(text)
    if marked or (script in _UNSPACED_HAN and text.count(" ") >= _FEWEST_SPACES and _SEGMENTED.search(text)):
        yield Sign.TOKENISED
    if "\t" in text.strip():
        yield Sign.COLUMNS
    if script in HAN_SCRIPTS and han_share(text, script) < _LEAST_HAN:
        yield Sign.CHINESE


class SignCounter:
    """Counts the signs of texts that are not cleaned, such as those of a test set."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._totals: Counter[str] = Counter()
        self._counts: Counter[tuple[str, Sign]] = Counter()
        self._examples: dict[tuple[str, Sign], str] = {}

    @property
    def languages(self) -> Collection[str]:
        """Languages of which texts were counted."""
        return self._totals.keys()

    def add(self, texts: Iterable[str], language: str) -> None:
        """Count texts in a language (canonical code)."""
        for text in texts:
            self._totals[language] += 1
            for sign in find_signs(text, language):
                self._counts[language, sign] += 1
                self._examples.setdefault((language, sign), text)

    def warnings(self) -> list[str]:
        """Return the findings that a person is warned of."""
        found = (
            SignCount(self._name, language, sign, count, self._totals[language], self._examples[language, sign])
            for (language, sign), count in sorted(self._counts.items())
        )
        return [one.finding for one in found if one.warns]
