"""From rows to pairs: cleaning, one pair a text, and splits that share nothing."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from nmt.config import CleanConfig
from nmt.data.clean import Reason, digit_template, normalise, reject_key, reject_translation
from nmt.data.corpora.read import Row
from nmt.data.corpora.spec import SPLITS, NamedSplits, Split, SplitRule
from nmt.languages import Direction

Pair = tuple[str, str]
_Place = tuple[str, str]  # key language, digit template of the key


class _Entry(NamedTuple):
    key: str
    pair: Pair


class Sieve:
    """Collects rows into pairs, and counts what falls through.

    A text of the key language gives one pair a direction, the first acceptable one in the order in which rows are
    added; of the texts that differ only in digits, one gives pairs. Their split is that of the first component which
    has such a text at all, so it depends neither on the directions nor on the translations.
    """

    def __init__(self, directions: Sequence[Direction], clean: CleanConfig) -> None:
        self.rejections: dict[Direction, Counter[Reason]] = {direction: Counter() for direction in directions}
        self._entries: dict[Direction, dict[Split, list[_Entry]]] = {
            direction: {split: [] for split in SPLITS} for direction in directions
        }
        self._clean = clean
        self._split_of: dict[_Place, Split] = {}
        self._key_of: dict[_Place, str] = {}  # the one text among those that differ only in digits
        self._full: set[tuple[Direction, _Place]] = set()

    def add(self, row: Row, rule: SplitRule | NamedSplits) -> None:
        """Take in the pairs of one row."""
        key_language, key = row.language, normalise(row.text)
        reasons = {key_language: reject_key(key, self._clean)}
        texts = {key_language: key}
        for language, text in row.translations.items():
            texts[language] = normalise(text)
            reasons[language] = reasons[key_language] or reject_translation(key, texts[language], self._clean)
        place = (key_language, digit_template(key))
        if not reasons[key_language] and place not in self._split_of:
            self._split_of[place] = rule.of(row.component)
        for direction, splits in self._entries.items():
            source, target = direction
            if source not in texts or target not in texts:
                continue
            reason = reasons[source] or reasons[target] or (Reason.COPY if texts[source] == texts[target] else None)
            if reason := reason or self._repeated(direction, place, key):
                self.rejections[direction][reason] += 1
            else:
                self._full.add((direction, place))
                splits[self._split_of[place]].append(_Entry(key, (texts[source], texts[target])))

    def _repeated(self, direction: Direction, place: _Place, key: str) -> Reason | None:
        if self._key_of.setdefault(place, key) != key:
            return Reason.DIGITS_DUPLICATE
        return Reason.DUPLICATE if (direction, place) in self._full else None

    def hold_out(self) -> None:
        """Remove pairs of which a side also stands, in any direction, in the test split, or for training in dev."""
        held: dict[str, set[str]] = defaultdict(set)  # by language
        for split in reversed(SPLITS):
            for direction, splits in self._entries.items():
                free = [
                    entry
                    for entry in splits[split]
                    if all(text not in held[language] for language, text in zip(direction, entry.pair, strict=True))
                ]
                if removed := len(splits[split]) - len(free):
                    self.rejections[direction][Reason.HELD_OUT] += removed
                splits[split] = free
            for direction, splits in self._entries.items():
                for entry in splits[split]:
                    for language, text in zip(direction, entry.pair, strict=True):
                        held[language].add(text)

    def pairs(self) -> dict[Direction, dict[Split, list[Pair]]]:
        """Return the pairs, (source, target), in the order in which their rows were added."""
        return {
            direction: {split: [entry.pair for entry in entries] for split, entries in splits.items()}
            for direction, splits in self._entries.items()
        }

    def rows(self) -> dict[Split, int]:
        """Return how many texts of the key language the pairs of each split come from."""
        return {
            split: len({entry.key for splits in self._entries.values() for entry in splits[split]}) for split in SPLITS
        }
