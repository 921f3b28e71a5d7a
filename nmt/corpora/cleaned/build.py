"""Building a cleaned corpus: rows are cleaned in chunks, candidates are written to disk, then some are chosen."""

import heapq
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.config import CleanConfig
from nmt.corpora.clean import Reason
from nmt.corpora.clean.signs import Sign, SignCount
from nmt.corpora.cleaned.candidates import COUPLES, VERDICTS_FILE, Candidates, records_name, texts_name
from nmt.corpora.cleaned.corpus import EMPTY_SIZE, Corpus, SplitSize, list_pairs
from nmt.corpora.cleaned.records import CANDIDATE, MEETING, TextPair, list_couples, sorted_couple
from nmt.corpora.cleaned.resolve import VERDICTS, count_rows, decontaminate, hold_out, resolve_duplicates
from nmt.corpora.cleaned.sieve import SAMPLES, Chunk, Cleaner, RejectedSample, RowBatch
from nmt.corpora.cleaned.spill import BUFFER_BYTES, Appender, Spill, allocate_zeros
from nmt.corpora.cleaned.testsets import KeptOutFile, KeptOutTexts, find_test_sets
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.opening import Corpora
from nmt.corpora.parallel import map_in_order
from nmt.corpora.readers.reader import CorpusReader, Row
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.progress import SILENT, Reporter, Task

_ROWS, _TEXTS = 1024, 8192  # most of a batch
_Rejected = dict[tuple[int, Reason], int]
_Samples = dict[tuple[int, Reason], list[RejectedSample]]


class DamagedError(UserError):
    """Raised when a corpus cannot be read to its end."""

    def __init__(self, corpus: str, why: str) -> None:
        super().__init__(why)
        self.corpus = corpus


@dataclass(frozen=True)
class CleaningJob:
    """Inputs of cleaning, apart from the corpora.

    Attributes:
      digest: hash of all inputs, from `inputs_digest`.
      directions: canonical.
      clean: configuration of the filters.
      workers: processes; the result does not depend on their number.
      expected_pairs: pairs that will be read, approximately; None: unknown.
      progress: shows how many pairs are cleaned.
    """

    digest: str
    directions: Sequence[Direction]
    clean: CleanConfig
    workers: int
    expected_pairs: int | None = None
    progress: Reporter = SILENT


def build(folder: Path, corpora: Corpora, job: CleaningJob) -> Corpus:
    """Clean open corpora into an empty folder.

    Raises:
      DamagedError: a corpus cannot be read to its end.
      UserError: a test set cannot be read.
    """
    directions = job.directions
    (folder / COUPLES).mkdir()
    (folder / "spill").mkdir()
    total = _Total(folder, directions, [source.spec.name for source in corpora.sources])
    with job.progress.track("cleaning", job.expected_pairs) as task:
        began = time.monotonic()
        for chunk in map_in_order(Cleaner, (directions, job.clean), _batches(corpora, directions), job.workers):
            total.add(chunk)
            speed = total.pairs / (time.monotonic() - began)
            task.update(total.pairs, f"cleaning: {total.pairs:,} pairs, {speed:,.0f} a second")
        candidates = total.finish()
        verdicts, test_sets = _decide(total, candidates, job, task)
        rows = count_rows(total.meetings, candidates, verdicts)
    for name in ("spill", "overlap"):
        shutil.rmtree(folder / name, ignore_errors=True)
    sizes = _sizes(candidates, directions, verdicts)
    _add_decided(candidates, directions, verdicts, total)
    return Corpus(
        pairs=list_pairs(candidates, sizes),
        rejections={one: Counter(total.list_rejections(i)) for i, one in enumerate(directions)},
        samples={one: total.list_samples(i) for i, one in enumerate(directions)},
        sizes=sizes,
        rows=rows,
        provenance=tuple(one for source in corpora.sources for one in source.provenance),
        unreadable=tuple(f"{source.spec.name}: {path}" for source in corpora.sources for path in source.unreadable),
        skipped={
            f"{source.spec.name}: {kind}": count
            for source in corpora.sources
            for kind, count in sorted(source.skipped.items())
        },
        failures=corpora.failures,
        digest=job.digest,
        candidates=candidates,
        unregistered={source.spec.name: source.unregistered for source in corpora.sources if source.unregistered},
        test_sets=test_sets,
        signs=total.list_signs(),
    )


def _decide(
    total: "_Total", candidates: Candidates, job: CleaningJob, task: Task
) -> tuple[np.ndarray, tuple[KeptOutFile, ...]]:
    """Return the verdicts on all candidates, [candidates] uint8, written to disk, and the use of named test sets."""
    clean = job.clean
    verdicts = allocate_zeros(candidates.folder / VERDICTS_FILE, len(candidates))
    task.update(None, f"deduplicating {total.pairs:,} pairs")
    resolve_duplicates(total.meetings, candidates, verdicts, keep_duplicates=clean.duplicates == "keep")
    hold_out(candidates, verdicts)
    task.update(None, f"comparing {total.pairs:,} pairs with held-out text")
    test_sets = list(map(KeptOutTexts, find_test_sets(clean.decontaminate)))
    removed = decontaminate(candidates, verdicts, test_sets, clean, job.workers)
    times = Counter(sorted_couple(*direction) for direction in job.directions)
    totals = np.array([times[couple] for couple in candidates.couples], np.int64) @ removed
    uses = zip(test_sets, totals.tolist(), strict=True)
    return verdicts, tuple(KeptOutFile(one.name, one.count, pairs) for one, pairs in uses)


class _Total:
    """The sum of all chunks, added in the order of rows."""

    def __init__(self, folder: Path, directions: Sequence[Direction], corpora: Sequence[str]) -> None:
        self.meetings = Spill(folder / "spill", MEETING, "place", BUFFER_BYTES)
        self.rejected: _Rejected = Counter()
        self.samples: _Samples = defaultdict(list)
        self.pairs = 0
        self._signs: Counter[tuple[int, str, Sign | None]] = Counter()
        self._examples: dict[tuple[int, str, Sign], str] = {}
        self._folder = folder
        self._couples = list_couples(directions)
        self._files = Appender(folder / COUPLES, BUFFER_BYTES)
        self._corpora = corpora
        self._counts = np.zeros((len(corpora), len(self._couples)), np.int64)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        meetings = np.frombuffer(chunk.meetings, MEETING).copy()
        mine = meetings["couple"] >= 0
        meetings["index"][mine] += self._counts.sum(axis=0)[meetings["couple"][mine]]
        self.meetings.append(meetings)
        for number, records in chunk.candidates.items():
            two = self._couples[number]
            self._files.append({records_name(two): records, texts_name(two): chunk.texts[number]})
            self._counts[chunk.corpus, number] += len(records) // CANDIDATE.itemsize
        for key, count in chunk.rejected.items():
            self.rejected[key] += count
        for key, found in chunk.samples.items():
            self.add_samples(key, found)
        for (language, sign), count in chunk.signs.items():
            self._signs[chunk.corpus, language, sign] += count
        for (language, some), text in chunk.examples.items():
            self._examples.setdefault((chunk.corpus, language, some), text)
        self.pairs += chunk.pairs

    def add_samples(self, key: tuple[int, Reason], found: Sequence[RejectedSample]) -> None:
        """Add samples of a direction and reason, and keep those with the lowest ranks."""
        self.samples[key] = heapq.nsmallest(SAMPLES, [*self.samples[key], *found])

    def finish(self) -> Candidates:
        """Write everything to disk, and return the candidates."""
        self._files.flush()
        by_corpus = dict(zip(self._corpora, self._counts.tolist(), strict=True))
        return Candidates(self._folder, self._couples, self._counts.sum(axis=0).tolist(), by_corpus)

    def list_signs(self) -> tuple[SignCount, ...]:
        """Return the signs of each corpus and language."""
        return tuple(
            SignCount(
                self._corpora[corpus],
                language,
                sign,
                self._signs[corpus, language, sign],
                self._signs[corpus, language, None],
                example,
            )
            for (corpus, language, sign), example in sorted(self._examples.items())
        )

    def list_rejections(self, direction: int) -> dict[Reason, int]:
        """Return the rejections of a direction, in the order of reasons."""
        return {reason: count for reason in Reason if (count := self.rejected.get((direction, reason), 0))}

    def list_samples(self, direction: int) -> dict[Reason, list[TextPair]]:
        """Return the samples of a direction, in the order of reasons."""
        found = ((reason, self.samples.get((direction, reason))) for reason in Reason)
        return {reason: [(one.source, one.target) for one in samples] for reason, samples in found if samples}


def _batches(corpora: Corpora, directions: Sequence[Direction]) -> Iterator[RowBatch]:
    """Yield the rows of all corpora in order, in batches that are small enough for memory."""
    wanted = {code for direction in directions for code in direction}
    for number, source in enumerate(corpora.sources):
        rows, texts = [], 0
        for row in _read(source, wanted):
            rows.append(row)
            texts += 1 + len(row.translations)
            if len(rows) == _ROWS or texts >= _TEXTS:
                yield RowBatch(rows, source.spec.split, number, source.spec.monolingual)
                rows, texts = [], 0
        if rows:
            yield RowBatch(rows, source.spec.split, number, source.spec.monolingual)


def _read(source: CorpusReader, wanted: Collection[str]) -> Iterator[Row]:
    try:
        yield from source.rows(wanted)
    except UserError as error:
        raise DamagedError(source.spec.name, str(error)) from None


def _sizes(
    candidates: Candidates, directions: Sequence[Direction], verdicts: np.ndarray
) -> dict[Direction, dict[Split, SplitSize]]:
    """Return the size of every split of every direction."""
    by_couple: list[dict[Split, SplitSize]] = []
    for number, base in enumerate(candidates.bases):
        records, mine = candidates.records(number), verdicts[base : base + candidates.counts[number]]
        splits = dict.fromkeys(SPLITS, EMPTY_SIZE)
        for low in range(0, len(records), 1 << 20):
            for code, split in enumerate(SPLITS):
                chosen = records[low : low + (1 << 20)][mine[low : low + (1 << 20)] == code]
                words, characters = (
                    (int(chosen[f"{what}_a"].sum(dtype=np.int64)), int(chosen[f"{what}_b"].sum(dtype=np.int64)))
                    for what in ("words", "characters")
                )
                splits[split] = splits[split] + SplitSize(len(chosen), words, characters)
        by_couple.append(splits)
    return {
        one: {
            split: size
            if one == sorted_couple(*one)
            else SplitSize(size.pairs, size.words[::-1], size.characters[::-1])
            for split, size in by_couple[candidates.couples.index(sorted_couple(*one))].items()
        }
        for one in directions
    }


def _add_decided(candidates: Candidates, directions: Sequence[Direction], verdicts: np.ndarray, total: _Total) -> None:
    """Count the rejected candidates, in both directions of a couple, and take samples of them."""
    for number, base in enumerate(candidates.bases):
        mine = verdicts[base : base + candidates.counts[number]]
        counts = np.bincount(mine, minlength=len(VERDICTS))
        ends = [i for i, one in enumerate(directions) if sorted_couple(*one) == candidates.couples[number]]
        for code, reason in enumerate(VERDICTS):
            if not isinstance(reason, Reason) or not counts[code]:
                continue
            some = np.flatnonzero(mine == code)
            some = np.sort(some[np.argsort(candidates.records(number)["hash_a"][some], kind="stable")[:SAMPLES]])
            pairs = [pair for _, block in candidates.read(number, some) for pair in block]
            for end in ends:
                total.rejected[end, reason] += int(counts[code])
                same = directions[end] == candidates.couples[number]
                total.add_samples(
                    (end, reason), [RejectedSample.ranked(end, *(pair if same else pair[::-1])) for pair in pairs]
                )
