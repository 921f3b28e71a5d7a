"""The distinct training texts of a language, read from disk, from which a vocabulary is learnt."""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from nmt.corpora.cleaned.candidates import Candidates
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.records import sorted_couple
from nmt.corpora.cleaned.spill import BUFFER_BYTES, Spill, explain_full_disk
from nmt.corpora.declare.spec_split import SPLITS

_TRAIN = SPLITS.index("train")
# A side of a couple: the number of the couple, and 0 or 1.
_CoupleSide = tuple[int, int]
_PLACE = np.dtype([("hash", "<u8"), ("place", "<u8")])
_PART_BITS = 40  # lower bits of a place: number of the candidate; higher bits: number of the side of a couple
_AT_ONCE = 1 << 20


def training_texts(corpus: Corpus, sides: Sequence[int]) -> "dict[str, Texts]":
    """Return the distinct training texts of each language on some sides of pairs (0: source, 1: target).

    They have the order of directions and pairs. Memory: 4 bytes a text.
    """
    parts: dict[str, dict[_CoupleSide, None]] = defaultdict(dict)
    for direction in corpus.pairs:
        two = sorted_couple(*direction)
        for side in sides:
            language = direction[side]
            parts[language][corpus.candidates.couples.index(two), two.index(language)] = None
    return {language: Texts(corpus.candidates, list(found)) for language, found in parts.items()}


class Texts(Collection[str]):
    """The distinct training texts of a language, from some sides of couples."""

    def __init__(self, candidates: Candidates, parts: Sequence[_CoupleSide]) -> None:
        self._candidates, self._parts = candidates, parts
        self._numbers = self._distinct()

    def __len__(self) -> int:
        return sum(map(len, self._numbers))

    def __iter__(self) -> Iterator[str]:
        for (number, side), numbers in zip(self._parts, self._numbers, strict=True):
            for _, pairs in self._candidates.read(number, numbers):
                yield from (pair[side] for pair in pairs)

    def __contains__(self, text: object) -> bool:
        return any(text == one for one in self)

    def _distinct(self) -> list[np.ndarray]:
        """Return, for each side of a couple, the numbers of the candidates whose text did not occur before."""
        with (
            explain_full_disk(self._candidates.folder),
            tempfile.TemporaryDirectory(dir=self._candidates.folder) as folder,
        ):
            spill = Spill(Path(folder), _PLACE, "hash", BUFFER_BYTES)
            for part, (number, side) in enumerate(self._parts):
                hashes = self._candidates.records(number)[f"hash_{'ab'[side]}"]
                verdicts = self._candidates.verdicts(number)
                for low in range(0, len(hashes), _AT_ONCE):
                    chosen = low + np.flatnonzero(verdicts[low : low + _AT_ONCE] == _TRAIN)
                    records = np.zeros(len(chosen), _PLACE)
                    records["hash"], records["place"] = hashes[chosen], chosen + (part << _PART_BITS)
                    spill.append(records)
            places = np.concatenate([_firsts(bucket) for bucket in spill.buckets()])
        places.sort()
        bounds = np.searchsorted(places, np.arange(len(self._parts) + 1, dtype=np.uint64) << np.uint64(_PART_BITS))
        mask = np.uint64((1 << _PART_BITS) - 1)
        return [(places[low:high] & mask).astype(np.uint32) for low, high in itertools.pairwise(bounds)]


def _firsts(records: np.ndarray) -> np.ndarray:
    """Return the lowest place of every hash, [distinct hashes] uint64."""
    ordered = records[np.argsort(records["hash"], kind="stable")]
    first = np.ones(len(ordered), bool)
    first[1:] = ordered["hash"][1:] != ordered["hash"][:-1]
    places: np.ndarray = ordered["place"][first]
    return places
