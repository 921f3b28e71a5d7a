"""Making a cleaned corpus: rows are cleaned in chunks, candidates grow on disk, then it is decided which are kept."""

import heapq
import itertools
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nmt.config import CleanConfig
from nmt.corpora.clean import Reason
from nmt.corpora.cleaned.candidates import COUPLES, VERDICTS_FILE, Candidates, records_name, texts_name
from nmt.corpora.cleaned.corpus import EMPTY_SIZE, Corpus, SplitSize, list_pairs
from nmt.corpora.cleaned.records import CANDIDATE, MEETING, TextPair, list_couples, sorted_couple
from nmt.corpora.cleaned.resolve import VERDICTS, count_rows, decontaminate, hold_out, resolve_duplicates
from nmt.corpora.cleaned.sieve import SAMPLES, Chunk, Cleaner, RejectedSample, RowBatch
from nmt.corpora.cleaned.spill import BUFFER_BYTES, Appender, Spill, allocate_zeros
from nmt.corpora.cleaned.testsets import read_test_set
from nmt.corpora.declare.spec_split import SPLITS, Split
from nmt.corpora.opening import Corpora
from nmt.corpora.parallel import map_in_order
from nmt.corpora.readers.read import Row, Source
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.progress import SILENT, Progress

_ROWS, _TEXTS = 1024, 8192  # most of a batch
_Rejected = dict[tuple[int, Reason], int]
_Samples = dict[tuple[int, Reason], list[RejectedSample]]


class DamagedError(UserError):
    """A corpus cannot be read to its end."""

    def __init__(self, corpus: str, why: str) -> None:
        super().__init__(why)
        self.corpus = corpus


@dataclass(frozen=True)
class CleaningJob:
    """How corpora are cleaned.

    Attributes:
      digest: see `inputs_digest`.
      directions: canonical.
      clean: the filters.
      workers: processes; the result does not depend on it.
      expected_pairs: how many pairs will be read, about; None: unknown.
      progress: who is told.
    """

    digest: str
    directions: Sequence[Direction]
    clean: CleanConfig
    workers: int
    expected_pairs: int | None = None
    progress: Progress = SILENT


def build(folder: Path, corpora: Corpora, job: CleaningJob) -> Corpus:
    """Clean open corpora into an empty folder.

    Raises:
      DamagedError: one of them cannot be read to its end.
      UserError: a test set cannot be read.
    """
    directions, clean = job.directions, job.clean
    (folder / COUPLES).mkdir()
    (folder / "spill").mkdir()
    grown = _Grown(folder, directions, [source.spec.name for source in corpora.sources])
    with job.progress.track("cleaning", job.expected_pairs) as task:
        began = time.monotonic()
        for chunk in map_in_order(Cleaner, (directions, clean), _batches(corpora, directions), job.workers):
            grown.add(chunk)
            speed = grown.pairs / (time.monotonic() - began)
            task.update(grown.pairs, f"cleaning: {grown.pairs:,} pairs, {speed:,.0f} a second")
        candidates = grown.finish()
        verdicts = allocate_zeros(folder / VERDICTS_FILE, len(candidates))
        task.update(None, f"deduplicating {grown.pairs:,} pairs")
        resolve_duplicates(grown.meetings, candidates, verdicts, keep_duplicates=clean.duplicates == "keep")
        hold_out(candidates, verdicts)
        task.update(None, f"comparing {grown.pairs:,} pairs with held-out text")
        named = itertools.chain.from_iterable(map(read_test_set, clean.decontaminate))
        decontaminate(candidates, verdicts, named, clean, job.workers)
        rows = count_rows(grown.meetings, candidates, verdicts)
    for name in ("spill", "overlap"):
        shutil.rmtree(folder / name, ignore_errors=True)
    sizes = _sizes(candidates, directions, verdicts)
    _add_decided(candidates, directions, verdicts, grown)
    return Corpus(
        pairs=list_pairs(candidates, sizes),
        rejections={one: Counter(grown.list_rejections(i)) for i, one in enumerate(directions)},
        samples={one: grown.list_samples(i) for i, one in enumerate(directions)},
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
    )


class _Grown:
    """What has grown of chunks, in the order of rows."""

    def __init__(self, folder: Path, directions: Sequence[Direction], corpora: Sequence[str]) -> None:
        self.meetings = Spill(folder / "spill", MEETING, "place", BUFFER_BYTES)
        self.rejected: _Rejected = Counter()
        self.samples: _Samples = defaultdict(list)
        self.pairs = 0
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
        self.pairs += chunk.pairs

    def add_samples(self, key: tuple[int, Reason], found: Sequence[RejectedSample]) -> None:
        """Add samples of a direction and reason: those with the lowest ranks stay."""
        self.samples[key] = heapq.nsmallest(SAMPLES, [*self.samples[key], *found])

    def finish(self) -> Candidates:
        """Write what is in memory."""
        self._files.flush()
        of_corpora = dict(zip(self._corpora, self._counts.tolist(), strict=True))
        return Candidates(self._folder, self._couples, self._counts.sum(axis=0).tolist(), of_corpora)

    def list_rejections(self, direction: int) -> dict[Reason, int]:
        """Return the rejections of a direction, in the order of reasons."""
        return {reason: count for reason in Reason if (count := self.rejected.get((direction, reason), 0))}

    def list_samples(self, direction: int) -> dict[Reason, list[TextPair]]:
        """Return the samples of a direction, in the order of reasons."""
        found = ((reason, self.samples.get((direction, reason))) for reason in Reason)
        return {reason: [(one.source, one.target) for one in samples] for reason, samples in found if samples}


def _batches(corpora: Corpora, directions: Sequence[Direction]) -> Iterator[RowBatch]:
    """Yield the rows of all corpora, in order, in batches of a size that bounds memory."""
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


def _read(source: Source, wanted: Collection[str]) -> Iterator[Row]:
    try:
        yield from source.rows(wanted)
    except UserError as error:
        raise DamagedError(source.spec.name, str(error)) from None


def _sizes(
    candidates: Candidates, directions: Sequence[Direction], verdicts: np.ndarray
) -> dict[Direction, dict[Split, SplitSize]]:
    """Return how much is kept."""
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


def _add_decided(candidates: Candidates, directions: Sequence[Direction], verdicts: np.ndarray, grown: _Grown) -> None:
    """Count the candidates that were rejected, for both directions of a couple, and take samples of them."""
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
                grown.rejected[end, reason] += int(counts[code])
                same = directions[end] == candidates.couples[number]
                grown.add_samples(
                    (end, reason), [RejectedSample.ranked(end, *(pair if same else pair[::-1])) for pair in pairs]
                )
