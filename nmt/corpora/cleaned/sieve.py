"""From rows to candidates: the cleaning of rows, chunk by chunk, in any process.

A candidate is a pair that passes every check of its own; which of several like candidates is kept is decided when all
are known, in nmt/corpora/cleaned/resolve.py.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, Self

from nmt.config import CleanConfig
from nmt.corpora.clean import Filters, Reason, digit_template, fold
from nmt.corpora.clean.scripts import writing
from nmt.corpora.cleaned.records import (
    CANDIDATE_STRUCT,
    MEETING_STRUCT,
    list_couples,
    sorted_couple,
    text_hash,
)
from nmt.corpora.declare.spec_split import SPLITS, SplitRule
from nmt.corpora.readers.read import Row
from nmt.languages import Direction

_MOST = 0xFFFF

_TRAIN = SPLITS.index("train")
_ALONE = "\0alone"  # in hashes, tells texts that stand alone from those of the key language

SAMPLES = 20  # of rejected pairs, for each direction and reason


class RejectedSample(NamedTuple):
    """A rejected pair. Of all of a direction and reason those with the lowest `rank`, a hash, are kept."""

    rank: int
    source: str
    target: str

    @classmethod
    def ranked(cls, direction: int, source: str, target: str) -> Self:
        """Return a sample of a direction (its number), so that each direction has others."""
        return cls(text_hash(str(direction), f"{source}\0{target}"), source, target)


class RowBatch(NamedTuple):
    """Rows of one corpus."""

    rows: Sequence[Row]
    rule: SplitRule
    corpus: int = 0  # its number
    monolingual: bool = False


class Chunk(NamedTuple):
    """What became of some rows.

    Attributes:
      meetings: records of MEETING; the index of a candidate counts from 0 in the chunk.
      candidates: records of CANDIDATE, by couple.
      texts: UTF-8 of both sides of every candidate, by couple.
      rejected: pairs by direction (its number) and reason.
      samples: some of them.
      pairs: pairs read, over all directions.
      corpus: number of the corpus.
    """

    meetings: bytearray
    candidates: Mapping[int, bytearray]
    texts: Mapping[int, bytearray]
    rejected: Counter[tuple[int, Reason]]
    samples: dict[tuple[int, Reason], list[RejectedSample]]
    pairs: int
    corpus: int


class Cleaner:
    """Cleans tasks for some directions."""

    def __init__(self, directions: Sequence[Direction], clean: CleanConfig) -> None:
        """Take the directions, and what is kept."""
        self._filters = Filters(clean)
        self._alike = {"folded": fold, "digits": digit_template}.get(clean.duplicates, str)
        self._couples = list_couples(directions)
        self._number = {couple: number for number, couple in enumerate(self._couples)}
        self._directions: dict[int, list[tuple[int, Direction]]] = defaultdict(list)
        for number, direction in enumerate(directions):
            self._directions[self._number[sorted_couple(*direction)]].append((number, direction))

    def __call__(self, task: RowBatch) -> Chunk:
        """Return what became of the rows of a task."""
        work = _Work()
        for row in task.rows:
            if task.monolingual:
                self._text(row, work)
            else:
                self._row(row, task.rule, work)
        return work.chunk(task.corpus)

    def _row(self, row: Row, rule: SplitRule, work: "_Work") -> None:
        raw = {row.language: row.text, **row.translations}
        couples = self._among(raw)
        filters, language = self._filters, row.language
        key = filters.normalise(row.text)
        if reason := filters.key(key, language):
            self._reject(couples, dict.fromkeys(raw, reason), raw, work)
            return
        place, exact = text_hash(language, self._alike(key)), text_hash(language, key)
        work.meetings += MEETING_STRUCT.pack(place, exact, SPLITS.index(rule.assign(row.component)), -1)
        texts, reasons = {language: key}, {}
        for code in dict.fromkeys(code for number in couples for code in self._couples[number] if code != language):
            texts[code] = filters.normalise(raw[code])
            if reason := filters.translation(key, language, texts[code], code):
                reasons[code] = reason
        facts: dict[str, _Facts] = {}
        for number in couples:
            first, second = self._couples[number]
            if first in reasons or second in reasons:
                self._reject([number], reasons, raw, work)
            elif filters.copies(texts[first], texts[second]):
                self._reject([number], {first: Reason.COPY, second: Reason.COPY}, raw, work)
            else:
                sides = [
                    facts.get(code) or facts.setdefault(code, _Facts.measure(code, texts[code]))
                    for code in (first, second)
                ]
                work.meetings += MEETING_STRUCT.pack(place, exact, work.add(number, *sides), number)
                work.pairs += len(self._directions[number])

    def _text(self, row: Row, work: "_Work") -> None:
        """Clean a text that stands alone, by the checks of one side.

        Like texts are looked for among those that stand alone, so that these never decide which pairs are kept, nor in
        which split: `hold_out` and `decontaminate` take out what is held out.
        """
        language = row.language
        if (number := self._number.get((language, language))) is None:
            return
        text = self._filters.normalise(row.text)
        if reason := self._filters.key(text, language):
            self._reject([number], {language: reason}, {language: row.text}, work)
            return
        place, exact = (text_hash(f"{language}{_ALONE}", one) for one in (self._alike(text), text))
        work.meetings += MEETING_STRUCT.pack(place, exact, _TRAIN, -1)
        facts = _Facts.measure(language, text)
        # The other side would be the same: it is not stored, and has nothing to compare but the hash.
        nothing = _Facts(facts.hash, b"", 0, 0)
        work.meetings += MEETING_STRUCT.pack(place, exact, work.add(number, facts, nothing), number)
        work.pairs += len(self._directions[number])

    def _among(self, languages: Mapping[str, str]) -> list[int]:
        """Return the couples of some languages that directions ask for, in ascending order."""
        if len(languages) * (len(languages) - 1) // 2 < len(self._couples):
            found = (self._number.get(sorted_couple(*two)) for two in combinations(languages, 2))
            return sorted(number for number in found if number is not None)
        return [
            number
            for number, (first, second) in enumerate(self._couples)
            if first != second and first in languages and second in languages
        ]

    def _reject(
        self, couples: Iterable[int], reasons: Mapping[str, Reason], raw: Mapping[str, str], work: "_Work"
    ) -> None:
        for couple in couples:
            for number, (source, target) in self._directions[couple]:
                reason = reasons.get(source) or reasons[target]
                work.rejected[number, reason] += 1
                other = "" if source == target else raw[target]
                work.samples[number, reason].append(RejectedSample.ranked(number, raw[source], other))
                work.pairs += 1


class _Facts(NamedTuple):
    """What is remembered of a text."""

    hash: int
    encoded: bytes
    characters: int
    words: int

    @classmethod
    def measure(cls, language: str, text: str) -> Self:
        words = writing(language).words(text)
        return cls(text_hash(language, text), text.encode(), min(len(text), _MOST), min(words, _MOST))


class _Work:
    """A chunk that grows."""

    def __init__(self) -> None:
        self.meetings = bytearray()
        self.rejected: Counter[tuple[int, Reason]] = Counter()
        self.samples: dict[tuple[int, Reason], list[RejectedSample]] = defaultdict(list)
        self.pairs = 0
        self._candidates: dict[int, bytearray] = defaultdict(bytearray)
        self._texts: dict[int, bytearray] = defaultdict(bytearray)

    def add(self, couple: int, a: _Facts, b: _Facts) -> int:
        """Add a candidate; return its number among those of the couple in this chunk."""
        candidates = self._candidates[couple]
        candidates += CANDIDATE_STRUCT.pack(
            a.hash, b.hash, len(a.encoded), len(b.encoded), a.characters, b.characters, a.words, b.words
        )
        texts = self._texts[couple]
        texts += a.encoded
        texts += b.encoded
        return len(candidates) // CANDIDATE_STRUCT.size - 1

    def chunk(self, corpus: int) -> Chunk:
        """Return what has grown."""
        samples = {key: heapq.nsmallest(SAMPLES, found) for key, found in self.samples.items()}
        return Chunk(self.meetings, self._candidates, self._texts, self.rejected, samples, self.pairs, corpus)
