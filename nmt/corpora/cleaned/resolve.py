"""Verdicts on candidates: which are kept, and in which split; duplicates and overlap with held-out text are rejected.

The code works on hashes and numbers in arrays; text is read only for the comparison of n-grams.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nmt.config import CleanConfig
from nmt.corpora.clean import Reason
from nmt.corpora.clean.overlap import OverlapIndex
from nmt.corpora.cleaned.candidates import Candidates
from nmt.corpora.cleaned.spill import Spill
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.parallel import map_in_order

# The verdict on a candidate, stored as its index here: the split that keeps it, or the reason of its rejection.
VERDICTS: tuple[Split | Reason, ...] = (
    *SPLITS, Reason.DUPLICATE, Reason.NEAR_DUPLICATE, Reason.HELD_OUT, Reason.CONTAMINATED
)  # fmt: skip
_TRAIN, _DEV, _TEST, _DUPLICATE, _NEAR, _HELD_OUT, _CONTAMINATED = range(len(VERDICTS))
_AT_ONCE = 1 << 20


def resolve_duplicates(meetings: Spill, candidates: Candidates, verdicts: np.ndarray, *, keep_duplicates: bool) -> None:
    """Decide which of several like candidates are kept, and in which split.

    Texts of the key language that are alike count as one text. It keeps one pair for each direction: the first
    acceptable one in the order of rows. Of like texts that differ, only the first one with a pair keeps any. The split
    is that of the first component that has such a text, so it depends on neither the directions nor the translations.

    Args:
      meetings: records of MEETING; those of like texts are in the order of rows.
      candidates: gives the number of candidates of each couple.
      verdicts: [candidates] uint8, filled here.
      keep_duplicates: whether to keep all candidates, and only decide on splits.
    """
    for records in meetings.buckets():
        found = records[np.argsort(records["place"], kind="stable")]
        first = _changes(found["place"])
        # The first record of a place is that of the text itself; it has the split. Candidates follow.
        split, places = found["index"][first], np.cumsum(first) - 1
        mine = found["couple"] >= 0
        found, places = found[mine], places[mine]
        decided = split[places]
        if not keep_duplicates:
            owners = np.zeros(len(split), np.uint64)
            first = _changes(places)
            owners[places[first]] = found["key"][first]
            own = np.flatnonzero(found["key"] == owners[places])
            _, once = np.unique(places[own] * len(candidates.couples) + found["couple"][own], return_index=True)
            decided = np.full(len(found), _NEAR, np.uint8)
            decided[own] = _DUPLICATE
            decided[own[once]] = split[places[own[once]]]
        verdicts[candidates.bases[found["couple"]] + found["index"]] = decided


def hold_out(candidates: Candidates, verdicts: np.ndarray) -> None:
    """Reject candidates with a side that also occurs, in any couple, in a split that is held out from theirs.

    Test is held out from dev, and both are held out from train.
    """
    held = np.zeros(0, np.uint64)
    for split in (_TEST, _DEV, _TRAIN):
        standing = [held]
        for couple, base in enumerate(candidates.bases):
            records, mine = candidates.records(couple), verdicts[base : base + candidates.counts[couple]]
            for low in range(0, len(records), _AT_ONCE):
                block, decided = records[low : low + _AT_ONCE], mine[low : low + _AT_ONCE]
                chosen = np.flatnonzero(decided == split)
                sides = [block[f"hash_{side}"][chosen] for side in "ab"]
                free = ~(_isin(sides[0], held) | _isin(sides[1], held))
                decided[chosen[~free]] = _HELD_OUT
                if split != _TRAIN:
                    standing += [side[free] for side in sides]
        held = np.unique(np.concatenate(standing))


def decontaminate(
    candidates: Candidates,
    verdicts: np.ndarray,
    test_sets: Sequence[Iterable[str]],
    clean: CleanConfig,
    workers: int,
) -> np.ndarray:
    """Reject training candidates with a side that overlaps with held-out text of the run, or of named test sets.

    Args:
      candidates: of which those with the verdict of training are compared.
      verdicts: [candidates] uint8, changed here.
      test_sets: the texts of each named test set, read once.
      clean: says how much overlap is too much.
      workers: processes; the result does not depend on their number.

    Returns:
      how many candidates of each couple overlap with each test set, [couples, test sets] int64.
    """
    removed = np.zeros((len(candidates.couples), len(test_sets)), np.int64)
    least = 1.0 if clean.max_overlap is None else clean.max_overlap
    texts = _HeldTexts(candidates, test_sets, clean)
    index = OverlapIndex.build(texts, clean.overlap_ngram, least)
    if not len(index.hashes):
        return removed
    folder = candidates.folder / "overlap"
    folder.mkdir()
    index.save(folder)
    blocks = (
        (couple, numbers, pairs)
        for couple in range(len(candidates.couples))
        for numbers, pairs in candidates.read_decided(couple, _TRAIN)
    )
    for couple, numbers, counts in map_in_order(_Overlapping, (folder, texts.ends), blocks, workers):
        verdicts[candidates.bases[couple] + numbers] = _CONTAMINATED
        removed[couple] += counts
    return removed


class _Overlapping:
    """Finds the candidates of a block that overlap with held-out text, and counts them by test set."""

    def __init__(self, folder: Path, ends: Sequence[int]) -> None:
        self._index, self._ends = OverlapIndex.load(folder), np.array(ends, np.int64)

    def __call__(self, block: tuple[int, np.ndarray, list[tuple[str, str]]]) -> tuple[int, np.ndarray, np.ndarray]:
        couple, numbers, pairs = block
        sides = [self._index.matches([pair[side] for pair in pairs]) for side in (0, 1)]
        own = np.concatenate([found for found, _ in sides])
        sets = np.searchsorted(self._ends, np.concatenate([held for _, held in sides]), side="right")
        files = len(self._ends)
        # Each candidate once for each test set; numbers beyond those of test sets are of the run's own held-out text.
        by_set = np.unique(own * (files + 1) + sets) % (files + 1)
        return couple, numbers[np.unique(own)], np.bincount(by_set, minlength=files + 1)[:files]


class _HeldTexts:
    """The texts that training must not overlap with: those of named test sets, then the run's own.

    Without `max_overlap` these are the named test sets only: `hold_out` has rejected identical texts of the run.

    Attributes:
      ends: number of texts up to the end of each test set, once they are read.
    """

    def __init__(self, candidates: Candidates, test_sets: Sequence[Iterable[str]], clean: CleanConfig) -> None:
        self._candidates, self._test_sets = candidates, test_sets
        self._splits = () if clean.max_overlap is None else (_DEV, _TEST)
        self.ends: list[int] = []

    def __iter__(self) -> Iterator[str]:
        count = 0
        for test_set in self._test_sets:
            for text in test_set:
                count += 1
                yield text
            self.ends.append(count)
        for couple in range(len(self._candidates.couples)):
            for split in self._splits:
                for _, pairs in self._candidates.read_decided(couple, split):
                    for pair in pairs:
                        yield from pair


def count_rows(meetings: Spill, candidates: Candidates, verdicts: np.ndarray) -> dict[Split, int]:
    """Return the number of distinct texts of the key language among the pairs of each split."""
    counts = dict.fromkeys(SPLITS, 0)
    for records in meetings.buckets():
        found = records[records["couple"] >= 0]
        decided = verdicts[candidates.bases[found["couple"]] + found["index"]]
        for code, split in enumerate(SPLITS):
            counts[split] += len(np.unique(found["key"][decided == code]))
    return counts


def _changes(values: np.ndarray) -> np.ndarray:
    """Return the mask (bool, the shape of `values`) of values that differ from the one before; the first one does."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return changes


def _isin(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Return the mask (bool, the shape of `values`) of values that occur in `ascending`, which is sorted."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values
