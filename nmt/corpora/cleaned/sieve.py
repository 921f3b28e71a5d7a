"""From rows to candidates: rows are cleaned in batches, in any process.

A candidate is a pair that passes all checks of a single pair. When all candidates are known,
nmt/corpora/cleaned/resolve.py decides which of several like ones is kept.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, Self

from nmt.config import CleanConfig
from nmt.corpora.clean import Filters, Reason, digit_template, fold
from nmt.corpora.clean.scripts import writing
from nmt.corpora.clean.signs import Sign, find_signs
from nmt.corpora.cleaned.records import (
    CANDIDATE_STRUCT,
    MEETING_STRUCT,
    list_couples,
    sorted_couple,
    text_hash,
)
from nmt.corpora.declare.spec_split import SPLITS, SplitRule
from nmt.corpora.readers.reader import Row
from nmt.languages import Direction

_MOST = 0xFFFF

_TRAIN = SPLITS.index("train")
_ALONE = "\0alone"  # makes the hashes of monolingual texts differ from those of the key language's texts

SAMPLES = 20  # rejected pairs that are kept for each direction and reason


class RejectedSample(NamedTuple):
    """A rejected pair. For each direction and reason those with the lowest `rank`, a hash, are kept as samples."""

    rank: int
    source: str
    target: str

    @classmethod
    def ranked(cls, direction: int, source: str, target: str) -> Self:
        """Return a sample; its rank depends on the direction's number, so that directions have different samples."""
        return cls(text_hash(str(direction), f"{source}\0{target}"), source, target)


class RowBatch(NamedTuple):
    """Some consecutive rows of a corpus."""

    rows: Sequence[Row]
    rule: SplitRule
    corpus: int = 0  # number of the corpus
    monolingual: bool = False


class Chunk(NamedTuple):
    """The result of cleaning a batch of rows. Couples and directions are given by their numbers.

    Attributes:
      meetings: records of MEETING; the index of a candidate counts from 0 in the chunk.
      candidates: records of CANDIDATE, by couple.
      texts: UTF-8 of both sides of every candidate, by couple.
      rejected: number of rejected pairs, by direction and reason.
      samples: some of these pairs.
      pairs: number of pairs read, over all directions.
      corpus: number of the corpus.
      signs: number of texts by language and sign; with no sign, of all texts.
      examples: the first text with a sign, by language and sign.
    """

    meetings: bytearray
    candidates: Mapping[int, bytearray]
    texts: Mapping[int, bytearray]
    rejected: Counter[tuple[int, Reason]]
    samples: dict[tuple[int, Reason], list[RejectedSample]]
    pairs: int
    corpus: int
    signs: Counter[tuple[str, Sign | None]]
    examples: dict[tuple[str, Sign], str]


class Cleaner:
    """Cleans batches of rows for some directions."""

    def __init__(self, directions: Sequence[Direction], clean: CleanConfig) -> None:
        """Prepare the filters. Raises UserError if `clean` needs a package that is not installed."""
        self._filters = Filters(clean)
        self._alike = {"folded": fold, "digits": digit_template}.get(clean.duplicates, str)
        self._couples = list_couples(directions)
        self._number = {couple: number for number, couple in enumerate(self._couples)}
        self._directions: dict[int, list[tuple[int, Direction]]] = defaultdict(list)
        for number, direction in enumerate(directions):
            self._directions[self._number[sorted_couple(*direction)]].append((number, direction))

    def __call__(self, batch: RowBatch) -> Chunk:
        """Clean the rows of a batch."""
        work = _ChunkBuilder()
        for row in batch.rows:
            if batch.monolingual:
                self._clean_text(row, work)
            else:
                self._clean_row(row, batch.rule, work)
        return work.chunk(batch.corpus)

    def _clean_row(self, row: Row, rule: SplitRule, work: "_ChunkBuilder") -> None:
        raw = {row.language: row.text, **row.translations}
        couples = self._find_couples(raw)
        work.note_signs(raw)
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
        known: dict[str, _Side] = {}
        for number in couples:
            first, second = self._couples[number]
            if first in reasons or second in reasons:
                self._reject([number], reasons, raw, work)
            elif filters.copies(texts[first], texts[second]):
                self._reject([number], {first: Reason.COPY, second: Reason.COPY}, raw, work)
            else:
                sides = [
                    known.get(code) or known.setdefault(code, _Side.measure(code, texts[code]))
                    for code in (first, second)
                ]
                work.meetings += MEETING_STRUCT.pack(place, exact, work.add(number, *sides), number)
                work.pairs += len(self._directions[number])

    def _clean_text(self, row: Row, work: "_ChunkBuilder") -> None:
        """Clean a monolingual text, by the checks of one side.

        Its hashes differ from those of the key language's texts, so monolingual text never decides which pairs are
        kept, nor in which split. `hold_out` and `decontaminate` reject it where it is held out.
        """
        language = row.language
        if (number := self._number.get((language, language))) is None:
            return
        work.note_signs({language: row.text})
        text = self._filters.normalise(row.text)
        if reason := self._filters.key(text, language):
            self._reject([number], {language: reason}, {language: row.text}, work)
            return
        place, exact = (text_hash(f"{language}{_ALONE}", one) for one in (self._alike(text), text))
        work.meetings += MEETING_STRUCT.pack(place, exact, _TRAIN, -1)
        side = _Side.measure(language, text)
        # The other side would be the same text: only its hash is stored.
        empty = _Side(side.hash, b"", 0, 0)
        work.meetings += MEETING_STRUCT.pack(place, exact, work.add(number, side, empty), number)
        work.pairs += len(self._directions[number])

    def _find_couples(self, languages: Mapping[str, str]) -> list[int]:
        """Return the numbers of the couples among some languages that directions ask for, ascending."""
        if len(languages) * (len(languages) - 1) // 2 < len(self._couples):
            found = (self._number.get(sorted_couple(*two)) for two in combinations(languages, 2))
            return sorted(number for number in found if number is not None)
        return [
            number
            for number, (first, second) in enumerate(self._couples)
            if first != second and first in languages and second in languages
        ]

    def _reject(
        self, couples: Iterable[int], reasons: Mapping[str, Reason], raw: Mapping[str, str], work: "_ChunkBuilder"
    ) -> None:
        for couple in couples:
            for number, (source, target) in self._directions[couple]:
                reason = reasons.get(source) or reasons[target]
                work.rejected[number, reason] += 1
                other = "" if source == target else raw[target]
                work.samples[number, reason].append(RejectedSample.ranked(number, raw[source], other))
                work.pairs += 1


class _Side(NamedTuple):
    """The facts about a side of a candidate that are stored."""

    hash: int
    encoded: bytes
    characters: int
    words: int

    @classmethod
    def measure(cls, language: str, text: str) -> Self:
        words = writing(language).words(text)
        return cls(text_hash(language, text), text.encode(), min(len(text), _MOST), min(words, _MOST))


class _ChunkBuilder:
    """A chunk under construction."""

    def __init__(self) -> None:
        self.meetings = bytearray()
        self.rejected: Counter[tuple[int, Reason]] = Counter()
        self.samples: dict[tuple[int, Reason], list[RejectedSample]] = defaultdict(list)
        self.pairs = 0
        self.signs: Counter[tuple[str, Sign | None]] = Counter()
        self.examples: dict[tuple[str, Sign], str] = {}
        self._candidates: dict[int, bytearray] = defaultdict(bytearray)
        self._texts: dict[int, bytearray] = defaultdict(bytearray)

    def note_signs(self, texts: Mapping[str, str]) -> None:
        """Count the signs of texts by their languages."""
        for language, text in texts.items():
            self.signs[language, None] += 1
            for sign in find_signs(text, language):
                self.signs[language, sign] += 1
                self.examples.setdefault((language, sign), text)

    def add(self, couple: int, a: _Side, b: _Side) -> int:
        """Add a candidate; return its number among the candidates of its couple in this chunk."""
        candidates = self._candidates[couple]
        candidates += CANDIDATE_STRUCT.pack(
            a.hash, b.hash, len(a.encoded), len(b.encoded), a.characters, b.characters, a.words, b.words
        )
        texts = self._texts[couple]
        texts += a.encoded
        texts += b.encoded
        return len(candidates) // CANDIDATE_STRUCT.size - 1

    def chunk(self, corpus: int) -> Chunk:
        """Return the finished chunk."""
        samples = {key: heapq.nsmallest(SAMPLES, found) for key, found in self.samples.items()}
        return Chunk(
            self.meetings,
            self._candidates,
            self._texts,
            self.rejected,
            samples,
            self.pairs,
            corpus,
            self.signs,
            self.examples,
        )
