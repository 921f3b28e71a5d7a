"""A cleaned corpus in a folder of the cache: pairs, which are read from disk, and counts of rejected ones.

FOLDER/corpus.json      written last: counts, sizes, sources, samples of rejected pairs
FOLDER/couples, verdicts    see nmt/corpora/cleaned/candidates.py
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

from nmt.corpora.clean import Reason
from nmt.corpora.clean.signs import Sign, SignCount
from nmt.corpora.cleaned.candidates import Candidates
from nmt.corpora.cleaned.records import TextPair, sorted_couple
from nmt.corpora.cleaned.testsets import KeptOutFile
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.readers.reader import FileProvenance
from nmt.languages import Direction

CORPUS_FILE = "corpus.json"
_FORMAT = 2


class SplitSize(NamedTuple):
    """Size of a direction's split: pairs, and words and characters of (source, target)."""

    pairs: int
    words: tuple[int, int]
    characters: tuple[int, int]

    def __add__(self, other: object) -> "SplitSize":
        """Return the sum of two sizes."""
        assert isinstance(other, SplitSize)
        words, characters = (
            (mine[0] + theirs[0], mine[1] + theirs[1])
            for mine, theirs in ((self.words, other.words), (self.characters, other.characters))
        )
        return SplitSize(self.pairs + other.pairs, words, characters)


EMPTY_SIZE = SplitSize(0, (0, 0), (0, 0))


class Pairs(Sequence[TextPair]):
    """The (source, target) pairs of a direction's split, in the order of (corpus, component, key path).

    Every iteration reads them from disk, in blocks. Access to a single pair by its number is slow.
    """

    def __init__(self, candidates: Candidates, direction: Direction, split: Split, size: int) -> None:
        self._candidates, self._size = candidates, size
        two = sorted_couple(*direction)
        self._couple, self._swapped = candidates.couples.index(two), direction.source != two[0]
        self._verdict = SPLITS.index(split)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[TextPair]:
        for _, pairs in self._candidates.read_decided(self._couple, self._verdict) if self._size else ():
            yield from ((b, a) for a, b in pairs) if self._swapped else pairs

    def iterate_with_corpora(self) -> Iterator[tuple[TextPair, str]]:
        """Yield each pair with the name of its corpus."""
        for numbers, pairs in self._candidates.read_decided(self._couple, self._verdict) if self._size else ():
            for (a, b), name in zip(pairs, self._candidates.corpus_names(self._couple, numbers), strict=True):
                yield ((b, a) if self._swapped else (a, b)), name

    @overload
    def __getitem__(self, index: int) -> TextPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[TextPair]: ...
    def __getitem__(self, index: int | slice) -> TextPair | list[TextPair]:
        """Return a pair, or a list of pairs; all pairs before it are read."""
        if isinstance(index, slice):
            return list(self)[index]
        if not -self._size <= index < self._size:
            raise IndexError(index)
        return next(islice(self, index % self._size, None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(tuple.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Pairs({'+'.join(self._candidates.couples[self._couple])}, {self._size} pairs)"


@dataclass(frozen=True)
class Corpus:
    """The kept pairs of every direction and split; counts and samples of the rejected ones."""

    pairs: dict[Direction, dict[Split, Pairs]]
    rejections: dict[Direction, Counter[Reason]]  # pairs read = pairs kept + pairs rejected
    samples: dict[Direction, dict[Reason, list[TextPair]]]  # rejected pairs, as they were read; duplicates: as cleaned
    sizes: dict[Direction, dict[Split, SplitSize]]
    rows: dict[Split, int]  # distinct texts of the key language among the pairs
    provenance: tuple[FileProvenance, ...]
    unreadable: tuple[str, ...]  # files that could not be read, as `CORPUS: PATH: REASON`
    skipped: dict[str, int]  # number of other unreadable items, by `CORPUS: KIND`
    failures: dict[str, str]  # errors of parts of mixtures that are left out, by name
    digest: str  # see `inputs_digest`
    candidates: Candidates
    unregistered: dict[str, list[str]] = field(default_factory=dict)  # codes that the registry does not know, by corpus
    test_sets: tuple[KeptOutFile, ...] = ()  # files of data.clean.decontaminate
    signs: tuple[SignCount, ...] = ()  # texts that are tokenised, say, by corpus and language

    def save(self) -> None:
        """Write corpus.json into the folder of the candidates; with it the folder is complete."""
        candidates = self.candidates
        values = {
            "format": _FORMAT,
            "digest": self.digest,
            "couples": [[*two, count] for two, count in zip(candidates.couples, candidates.counts, strict=True)],
            "corpora": candidates.corpora,
            "directions": {
                str(direction): {
                    "languages": direction,
                    "rejected": self.rejections[direction],
                    "sizes": self.sizes[direction],
                    "samples": self.samples[direction],
                }
                for direction in self.pairs
            },
            "rows": self.rows,
            "provenance": [asdict(source) for source in self.provenance],
            "unreadable": self.unreadable,
            "skipped": self.skipped,
            "failures": self.failures,
            "unregistered": self.unregistered,
            "test_sets": [one._asdict() for one in self.test_sets],
            "signs": [one._asdict() for one in self.signs],
        }
        # Rejected text may be anything, lone surrogates included.
        (candidates.folder / CORPUS_FILE).write_text(json.dumps(values, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Corpus | None":
        """Return the corpus in a folder, or None if it has none, or one of another version."""
        try:
            values = json.loads((folder / CORPUS_FILE).read_text())
        except (OSError, ValueError):
            return None
        if values.get("format") != _FORMAT:
            return None
        couples = values["couples"]
        names, counts = [(a, b) for a, b, _ in couples], [count for *_, count in couples]
        candidates = Candidates(folder, names, counts, values["corpora"])
        entries = {Direction(*entry["languages"]): entry for entry in values["directions"].values()}
        sizes = {direction: _sizes(entry["sizes"]) for direction, entry in entries.items()}
        return cls(
            pairs=list_pairs(candidates, sizes),
            rejections={direction: _reasons(entry["rejected"]) for direction, entry in entries.items()},
            samples={
                direction: {Reason(name): [(a, b) for a, b in pairs] for name, pairs in entry["samples"].items()}
                for direction, entry in entries.items()
            },
            sizes=sizes,
            rows=values["rows"],
            provenance=tuple(FileProvenance(**source) for source in values["provenance"]),
            unreadable=tuple(values["unreadable"]),
            skipped=values.get("skipped", {}),  # older versions lack it
            failures=values["failures"],
            digest=values["digest"],
            candidates=candidates,
            unregistered=values.get("unregistered", {}),
            test_sets=tuple(KeptOutFile(**one) for one in values.get("test_sets", ())),
            signs=tuple(SignCount(**{**one, "sign": Sign(one["sign"])}) for one in values.get("signs", ())),
        )


def list_pairs(
    candidates: Candidates, sizes: dict[Direction, dict[Split, SplitSize]]
) -> dict[Direction, dict[Split, Pairs]]:
    """Return the pairs of every direction and split, to be read from disk."""
    return {
        direction: {split: Pairs(candidates, direction, split, size.pairs) for split, size in splits.items()}
        for direction, splits in sizes.items()
    }


def _sizes(values: dict[Split, list[Any]]) -> dict[Split, SplitSize]:
    return {
        split: SplitSize(pairs, tuple(words), tuple(characters)) for split, (pairs, words, characters) in values.items()
    }


def _reasons(values: dict[str, int]) -> Counter[Reason]:
    return Counter({Reason(name): count for name, count in values.items()})
