"""Candidates on disk: their records, their text, and the verdict on each.

FOLDER/couples/de+en.records    CANDIDATE records, in the order in which their rows were read
FOLDER/couples/de+en.texts      UTF-8 of both sides of every candidate, one after the other
FOLDER/verdicts                 a byte for every candidate of every couple, couples one after the other
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from nmt.corpora.cleaned.records import CANDIDATE, Couple, TextPair

COUPLES, VERDICTS_FILE = "couples", "verdicts"
_BLOCK = 4096  # candidates that are read at once


class Candidates:
    """The candidates in a folder; picklable, no file stays open. K: candidates of a couple.

    Attributes:
      folder: the folder.
      couples: the couples of languages.
      counts: number of candidates of each couple.
      corpora: number of candidates of each couple that come from each corpus, by its name; in this order.
    """

    def __init__(
        self, folder: Path, couples: Sequence[Couple], counts: Sequence[int], corpora: Mapping[str, Sequence[int]]
    ) -> None:
        self.folder, self.couples, self.counts = folder, tuple(couples), tuple(counts)
        self.corpora = dict(corpora)
        self._bases = [0, *np.cumsum(self.counts, dtype=np.int64).tolist()]

    @property
    def bases(self) -> np.ndarray:
        """Offset of each couple's verdicts in the file, [couples] int64."""
        return np.array(self._bases[:-1], np.int64)

    def __len__(self) -> int:
        return self._bases[-1]

    def records(self, couple: int) -> np.ndarray:
        """Return the records [K] (CANDIDATE) of a couple, by its number."""
        if not self.counts[couple]:
            return np.zeros(0, CANDIDATE)
        return np.memmap(self.folder / COUPLES / records_name(self.couples[couple]), CANDIDATE, "r")

    def verdicts(self, couple: int) -> np.ndarray:
        """Return the verdicts [K] (uint8) on the candidates of a couple; see `resolve.VERDICTS`."""
        if not self.counts[couple]:
            return np.zeros(0, np.uint8)
        path, base = self.folder / VERDICTS_FILE, self._bases[couple]
        return np.memmap(path, np.uint8, "r", offset=base, shape=(self.counts[couple],))

    def corpus_names(self, couple: int, numbers: np.ndarray) -> list[str]:
        """Return the name of the corpus of each of some candidates of a couple, by their numbers."""
        ends = np.cumsum([counts[couple] for counts in self.corpora.values()])
        names = list(self.corpora)
        return [names[place] for place in np.searchsorted(ends, numbers, side="right").tolist()]

    def read_decided(self, couple: int, verdict: int) -> Iterator[tuple[np.ndarray, list[TextPair]]]:
        """Yield the candidates of a couple with a verdict, in blocks: their numbers, and their texts."""
        verdicts = self.verdicts(couple)
        yield from self._blocks(couple, lambda low, high: low + np.flatnonzero(verdicts[low:high] == verdict))

    def read(self, couple: int, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, list[TextPair]]]:
        """Yield some candidates of a couple, by ascending numbers, in blocks: their numbers, and their texts."""
        yield from self._blocks(
            couple, lambda low, high: numbers[np.searchsorted(numbers, low) : np.searchsorted(numbers, high)]
        )

    def _blocks(
        self, couple: int, choose: Callable[[int, int], np.ndarray]
    ) -> Iterator[tuple[np.ndarray, list[TextPair]]]:
        if not self.counts[couple]:
            return
        records = self.records(couple)
        begin = 0
        with (self.folder / COUPLES / texts_name(self.couples[couple])).open("rb") as file:
            for low in range(0, len(records), _BLOCK):
                block = records[low : low + _BLOCK]
                first = block["bytes_a"].astype(np.int64)
                ends = begin + np.cumsum(first + block["bytes_b"])
                chosen = choose(low, low + len(block))
                if len(chosen):
                    where = chosen - low
                    starts = np.concatenate([[begin], ends[:-1]])[where]
                    file.seek(start := int(starts[0]))
                    text = file.read(int(ends[where[-1]]) - start)
                    bounds = zip(
                        (starts - start).tolist(), first[where].tolist(), (ends[where] - start).tolist(), strict=True
                    )
                    yield chosen, [(text[a : a + n].decode(), text[a + n : b].decode()) for a, n, b in bounds]
                begin = int(ends[-1])


def records_name(couple: Couple) -> str:
    """Return the name of the file of a couple's records."""
    return f"{'+'.join(couple)}.records"


def texts_name(couple: Couple) -> str:
    """Return the name of the file of a couple's texts."""
    return f"{'+'.join(couple)}.texts"
