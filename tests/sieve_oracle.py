"""The sieve, slow and in memory: what rows become, by the plain rules, to compare with."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from nmt.config import CleanConfig
from nmt.corpora import SPLITS, Split
from nmt.corpora.clean import Filters, Reason
from nmt.corpora.readers.reader import Row
from nmt.languages import Direction

Pair = tuple[str, str]


class _Entry(NamedTuple):
    key: str
    pair: Pair


def folded(text: str) -> str:
    """Digits as 0, no case, no punctuation; for text without combining marks."""
    kept = "".join(one if one.isalnum() else " " for one in unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.sub(r"\d+", "0", kept).split())


TEMPLATES: dict[str, Any] = {
    "keep": str,
    "exact": str,
    "digits": lambda text: re.sub(r"\d+", "0", text),
    "folded": folded,
}


class SlowSieve:
    """Collects rows into pairs, and counts what falls through; rows are added in order, then `finish`."""

    def __init__(self, directions: Sequence[Direction], clean: CleanConfig) -> None:
        self.rejections: dict[Direction, Counter[Reason]] = {direction: Counter() for direction in directions}
        self._entries: dict[Direction, dict[Split, list[_Entry]]] = {
            direction: {split: [] for split in SPLITS} for direction in directions
        }
        self._clean, self._filters = clean, Filters(clean)
        self._split_of: dict[tuple[str, str], Split] = {}
        self._key_of: dict[tuple[str, str], str] = {}
        self._full: set[tuple[Direction, tuple[str, str]]] = set()

    def add(self, row: Row, rule: Any) -> None:
        filters = self._filters
        key = filters.normalise(row.text)
        reasons = {row.language: filters.key(key, row.language)}
        texts = {row.language: key}
        for language, raw in row.translations.items():
            text = texts[language] = filters.normalise(raw)
            reasons[language] = reasons[row.language] or filters.translation(key, row.language, text, language)
        place = (row.language, TEMPLATES[self._clean.duplicates](key))
        if not reasons[row.language] and place not in self._split_of:
            self._split_of[place] = rule.assign(row.component)
        for direction, splits in self._entries.items():
            source, target = direction
            if source not in texts or target not in texts:
                continue
            copy = Reason.COPY if self._clean.copies and texts[source] == texts[target] else None
            if reason := reasons[source] or reasons[target] or copy or self._repeated(direction, place, key):
                self.rejections[direction][reason] += 1
            else:
                self._full.add((direction, place))
                splits[self._split_of[place]].append(_Entry(key, (texts[source], texts[target])))

    def _repeated(self, direction: Direction, place: tuple[str, str], key: str) -> Reason | None:
        if self._clean.duplicates == "keep":
            return None
        if self._key_of.setdefault(place, key) != key:
            return Reason.NEAR_DUPLICATE
        return Reason.DUPLICATE if (direction, place) in self._full else None

    def finish(self, test_sets: Sequence[str] = ()) -> None:
        held: dict[str, set[str]] = defaultdict(set)
        for split in reversed(SPLITS):
            self._keep(
                split,
                Reason.HELD_OUT,
                lambda direction, pair: all(text not in held[one] for one, text in zip(direction, pair, strict=True)),
            )
            for direction, splits in self._entries.items():
                for entry in splits[split]:
                    for language, text in zip(direction, entry.pair, strict=True):
                        held[language].add(text)
        if self._clean.max_overlap is not None:
            kept = [
                text
                for splits in self._entries.values()
                for split in ("dev", "test")
                for entry in splits[split]
                for text in entry.pair
            ]
            self._keep("train", Reason.CONTAMINATED, lambda _, pair: not self._overlap(pair, [*kept, *test_sets]))

    def _overlap(self, pair: Pair, held: Sequence[str]) -> bool:
        clean = self._clean
        assert clean.max_overlap is not None
        return any(
            overlap(text, other, clean.overlap_ngram, clean.max_overlap)
            for text in pair
            for other in dict.fromkeys(held)
        )

    def _keep(self, split: Split, reason: Reason, free: Any) -> None:
        for direction, splits in self._entries.items():
            kept = [entry for entry in splits[split] if free(direction, entry.pair)]
            if removed := len(splits[split]) - len(kept):
                self.rejections[direction][reason] += removed
            splits[split] = kept

    def pairs(self) -> dict[Direction, dict[Split, list[Pair]]]:
        return {
            direction: {split: [entry.pair for entry in entries] for split, entries in splits.items()}
            for direction, splits in self._entries.items()
        }

    def rows(self) -> dict[Split, int]:
        return {
            split: len({entry.key for splits in self._entries.values() for entry in splits[split]}) for split in SPLITS
        }


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = folded(text).split()
    if len(words) < n:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def overlap(text: str, held: str, n: int, least: float) -> bool:
    """Whether a text (in a script with spaces) overlaps with a held-out one."""
    mine, theirs = grams(text, n), grams(held, n)
    shared = len(mine & theirs)
    if not shared or shared < least * len(theirs):
        return False
    return len(theirs) >= 8 or shared >= least * len(mine)
