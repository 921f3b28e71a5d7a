"""The host's side of a search: which sentence takes which slot, when, and the shapes that slots have meanwhile.

A finished sentence leaves its slot to one that waits, so rows seldom run for nothing. Sentences come from several jobs
at once, such as the calls of several threads; jobs take turns, each longest sentence first.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nmt.config import DecodeConfig
from nmt.decode.beam import Finished, TargetRules
from nmt.decode.options import SearchOptions
from nmt.decode.requests import Sentence, row_limits
from nmt.decode.shapes import largest_batch, rows_for, target_rooms
from nmt.decode.slots import (
    Slots,
    SlotShape,
    advance_slots,
    fill_rows,
    insert_sentences,
    rearrange_slots,
    start_sentences,
)
from nmt.errors import UserError
from nmt.models.incremental import InferenceModel

STEPS = 16  # of a search between two looks at what has finished and who waits
COMPILE_SECONDS = 3.0  # a guess of what a program costs, until one has been compiled


@dataclass(frozen=True)
class Hypothesis:
    """One translation of one source."""

    tokens: list[int]  # without begin and end
    score: float  # log probability over the length normaliser
    log_probability: float  # natural logarithm; the end is counted


class Job:
    """The sentences of one call, and what has been found for them.

    Args:
      sentences: the sentences.
    """

    def __init__(self, sentences: Iterable[Sentence]):
        self.waiting = deque(sorted(sentences, key=lambda sentence: -len(sentence.source)))
        self.left = len(self.waiting)
        self.found: dict[int, list[Hypothesis]] = {}
        self.error: Exception | None = None
        self.dropped = False

    @property
    def done(self) -> bool:
        """Whether every sentence has been translated, or one of them failed."""
        return not self.left or self.error is not None

    def deliver(self, number: int, hypotheses: list[Hypothesis]) -> None:
        """Take the hypotheses of a sentence."""
        self.left -= 1
        if hypotheses:
            self.found[number] = hypotheses
        else:
            self.error = UserError(
                "the model gives no finite probabilities: its training has diverged; use an earlier checkpoint"
            )


class Occupant(NamedTuple):
    """Who is in a slot."""

    job: Job
    sentence: Sentence


@dataclass(frozen=True)
class PoolSettings:
    """Settings that all sentences of a pool share."""

    config: DecodeConfig
    options: SearchOptions  # what `shared_options` leaves of a request's
    buckets: tuple[int, ...]  # lengths of sources
    shards: int  # parts into which the mesh splits rows


@dataclass
class CompiledShapes:
    """The shapes whose programs have been compiled, and the time that was lost for want of others."""

    known: set[tuple[object, ...]] = field(default_factory=set)
    lost: dict[tuple[object, ...], float] = field(default_factory=dict)
    seconds: float = COMPILE_SECONDS  # of the last compilation

    def is_worthwhile(self, key: tuple[object, ...]) -> bool:
        """Return whether to change to a shape: its program is there, or as much time was lost as it costs."""
        return key in self.known or self.lost.get(key, 0.0) > self.seconds

    def add_loss(self, key: tuple[object, ...], seconds: float) -> None:
        """Count seconds that a smaller shape would have saved."""
        self.lost[key] = self.lost.get(key, 0.0) + seconds


class SlotPool:
    """Slots on the device, and the sentences in them. One thread at a time may advance it, any may add jobs.

    Args:
      model: the model.
      targets: tokens that may be generated.
      settings: see `PoolSettings`.
      compiled: shared by the pools of a model.
    """

    def __init__(self, model: InferenceModel, targets: TargetRules, settings: PoolSettings, compiled: CompiledShapes):
        self._model, self._targets, self._settings, self._compiled = model, targets, settings, compiled
        self._arrivals: SimpleQueue[Job] = SimpleQueue()
        self._jobs: deque[Job] = deque()
        self._slots: Slots | None = None
        self._occupants: list[Occupant | None] = []

    @property
    def busy(self) -> bool:
        """Whether any sentence waits or is in a slot."""
        return not self._arrivals.empty() or bool(self._waiting()) or self._live_rows() > 0

    def add(self, job: Job) -> None:
        """Let the sentences of a job wait for slots."""
        self._arrivals.put(job)

    def reset(self) -> None:
        """Give the slots up, as after a failure; sentences in them wait again."""
        for occupant in filter(None, self._occupants):
            if occupant.job not in self._jobs:
                self._jobs.append(occupant.job)
            occupant.job.waiting.appendleft(occupant.sentence)
        self._slots, self._occupants = None, []

    def advance(self) -> None:
        """Fill free slots, take some steps, and deliver what has finished.

        Raises:
          UserError: the device's memory does not suffice.
        """
        self._greet()
        self._admit()
        if self._slots is None:
            return
        began, live = time.perf_counter(), self._live_rows()
        shape, most_idle = self._slots.shape, self._most_idle()
        key = self._key(shape)
        inputs, targets = self._slots.inputs, self._targets
        state, alive = advance_slots(
            self._model, inputs, self._slots.state, targets, jnp.int32(STEPS), jnp.int32(most_idle)
        )
        self._slots = Slots(inputs, state)
        self._deliver(np.asarray(alive), state.finished)
        self._account(key, live, time.perf_counter() - began)

    # Who comes in.

    def _greet(self) -> None:
        """Let in the jobs that have arrived, and forget those that were dropped: what is in a slot finishes for no one.

        No other method looks at what other threads change.
        """
        while not self._arrivals.empty():
            self._jobs.append(self._arrivals.get())
        self._jobs = deque(job for job in self._jobs if not job.dropped)

    def _waiting(self) -> int:
        return sum(len(job.waiting) for job in self._jobs)

    def _live_rows(self) -> int:
        return sum(occupant is not None for occupant in self._occupants)

    def _take(self, count: int) -> list[Occupant]:
        """Take waiting sentences, one of each job in turn."""
        taken: list[Occupant] = []
        while len(taken) < count and self._jobs:
            job = self._jobs.popleft()
            if job.waiting:
                taken.append(Occupant(job, job.waiting.popleft()))
            if job.waiting:
                self._jobs.append(job)
        return taken

    def _longest_waiting(self) -> int:
        return max((len(job.waiting[0].source) for job in self._jobs if job.waiting), default=0)

    def _bucket(self, tokens: int) -> int:
        return next(bucket for bucket in self._settings.buckets if tokens <= bucket)

    def _most_rows(self, bucket: int) -> int:
        return largest_batch(self._settings.config, bucket, self._settings.shards)

    def _start_size(self, rows: int) -> int:
        """Return how many sentences are started together."""
        return rows_for(rows // 8, self._settings.shards, down=True)

    def _admit(self) -> None:
        """Give waiting sentences their slots, and the slots another shape where that pays."""
        if not self._live_rows():
            self._slots = None
        if not self._waiting():
            self._compact()
        elif self._slots is None:
            self._begin()
        if self._slots is not None:
            self._make_room()
            self._refill()

    def _begin(self) -> None:
        """Make slots for the sentences that wait, and start the first of them."""
        bucket = self._bucket(self._longest_waiting())
        rows = min(rows_for(self._waiting(), self._settings.shards), self._most_rows(bucket))
        taken = self._take(self._start_size(rows))
        started = self._start(taken)
        self._occupants = [*taken, *[None] * (started.shape.rows - len(taken))]
        self._rearrange(started, SlotShape(rows, bucket, self._rooms(bucket)[0]))

    def _refill(self) -> None:
        """Start waiting sentences in idle slots, as long as enough of them can be started together."""
        assert self._slots is not None
        rows, source, _ = self._slots.shape
        together = self._start_size(rows)
        while waiting := self._waiting():
            idle = [row for row, occupant in enumerate(self._occupants) if occupant is None]
            wanted = min(together, waiting)
            if len(idle) < wanted or self._bucket(self._longest_waiting()) > source:
                return
            taken = self._take(wanted)
            started = self._start(taken)
            at = np.full(started.shape.rows, rows, np.int32)
            at[: len(taken)] = idle[: len(taken)]
            self._slots = insert_sentences(self._slots, started, at)
            for row, occupant in zip(idle, taken, strict=False):
                self._occupants[row] = occupant

    def _start(self, taken: Sequence[Occupant]) -> Slots:
        """Return slots of their own for sentences that were taken, after their first step."""
        options = self._settings.options
        rows = self._start_size(8 * rows_for(len(taken), self._settings.shards))
        bucket = self._bucket(max(len(occupant.sentence.source) for occupant in taken))
        sentences = [occupant.sentence for occupant in taken]
        source, length = fill_rows([list(sentence.source) for sentence in sentences], rows, bucket)
        begin = np.zeros(rows, np.int32)
        begin[: len(sentences)] = [sentence.begin for sentence in sentences]
        limits = row_limits(sentences, rows)
        return start_sentences(
            self._model, source, length, begin, limits, self._targets, beam=options.width, kept=options.hypotheses
        )

    # The shapes of slots.

    def _rooms(self, bucket: int) -> list[int]:
        return target_rooms(bucket, self._settings.options)

    def _key(self, shape: SlotShape) -> tuple[object, ...]:
        options = self._settings.options
        return (*shape, options.width, options.hypotheses, jax.tree.structure(self._targets))

    def _make_room(self) -> None:
        """Make the slots larger where a live hypothesis, a waiting source or their number asks for it.

        Where short sentences wait for slots of long ones, the slots become shorter and more.
        """
        assert self._slots is not None
        shape, waiting = self._slots.shape, self._waiting()
        sources = [len(occupant.sentence.source) for occupant in self._occupants if occupant is not None]
        source = self._bucket(max([*sources, self._longest_waiting()]))
        most, live = self._most_rows(source), len(sources)
        rows = shape.rows
        if source > shape.source and live > most - self._start_size(most):
            source, rows = shape.source, shape.rows  # wait until the slots that remain suffice for longer ones
        elif source != shape.source and (source > shape.source or waiting > shape.rows // 2):
            rows = min(most, rows_for(max(1, live + waiting), self._settings.shards))
        elif waiting > shape.rows - live:
            source = shape.source
            rows = max(shape.rows, min(self._most_rows(source), rows_for(live + waiting, self._settings.shards)))
        else:
            source = shape.source
        steps = self._steps(source, shape)
        if (rows, source, steps) != shape:
            self._rearrange(self._slots, SlotShape(rows, source, steps))

    def _steps(self, source: int, shape: SlotShape) -> int:
        """Return the room that targets need in slots for sources of a bucket."""
        assert self._slots is not None
        live = np.array([occupant is not None for occupant in self._occupants])
        newest = int(np.where(live, np.asarray(self._slots.state.position), 0).max())
        least = newest + 1 if source != shape.source or newest >= shape.steps else shape.steps
        return next((room for room in self._rooms(source) if room >= least), max(least, shape.steps))

    def _compact(self) -> None:
        """Halve the slots, perhaps more than once, when at most half of them are in use and nobody waits."""
        if self._slots is None:
            return
        shape = self._slots.shape
        smaller = shape._replace(rows=rows_for(self._live_rows(), self._settings.shards))
        if smaller.rows < shape.rows and self._compiled.is_worthwhile(self._key(smaller)):
            self._rearrange(self._slots, smaller)

    def _rearrange(self, slots: Slots, shape: SlotShape) -> None:
        """Move the occupants to slots of another shape."""
        occupied = [row for row, occupant in enumerate(self._occupants) if occupant is not None]
        take, keep = np.zeros(shape.rows, np.int32), np.zeros(shape.rows, bool)
        take[: len(occupied)], keep[: len(occupied)] = occupied, True
        self._occupants = [*(self._occupants[row] for row in occupied), *[None] * (shape.rows - len(occupied))]
        self._slots = rearrange_slots(slots, take, keep, shape=shape)

    def _most_idle(self) -> int:
        """Return with how many idle slots the search is to stop: when sentences can start, or half of the rest idle."""
        assert self._slots is not None
        rows = self._slots.shape.rows
        idle = rows - self._live_rows()
        if waiting := self._waiting():
            return min(rows, max(idle + 1, min(self._start_size(rows), waiting)))
        live = rows // 2
        while live and rows - live <= idle:
            live //= 2
        return rows - live

    def _account(self, key: tuple[object, ...], live: int, seconds: float) -> None:
        """Note that a program is there, and what a smaller one would have saved."""
        if key not in self._compiled.known:
            self._compiled.known.add(key)
            return
        rows, *rest = key
        assert isinstance(rows, int)
        wanted = rows_for(live, self._settings.shards)
        if not self._waiting() and wanted < rows:
            self._compiled.add_loss((wanted, *rest), seconds * (1 - wanted / rows))

    # What comes out.

    def _deliver(self, alive: np.ndarray, finished: Finished) -> None:
        done = [row for row, occupant in enumerate(self._occupants) if occupant is not None and not alive[row]]
        if not done:
            return
        found = jax.device_get(finished)
        for row in done:
            occupant = self._occupants[row]
            assert occupant is not None
            self._occupants[row] = None
            occupant.job.deliver(occupant.sentence.number, _hypotheses(found, row, occupant.sentence.options))


def _hypotheses(finished: Finished, row: int, options: SearchOptions) -> list[Hypothesis]:
    """Return the finished hypotheses of a row, best first; none if the model's probabilities are not finite.

    Their order is that of the search, their scores are without its penalties.
    """
    columns = finished.score[row], finished.log_probability[row], finished.length[row], finished.tokens[row]
    return [
        Hypothesis(tokens[:length].tolist(), options.normalised(float(own), int(length)), float(own))
        for score, own, length, tokens in zip(*columns, strict=True)
        if np.isfinite(score)
    ]
