"""The host's side of a search: which sentence takes which slot, when, and the shapes that slots have meanwhile.

A finished sentence leaves its slot to one that waits, so rows seldom run for nothing. Sentences come from several jobs
at once, such as the calls of several threads; jobs take turns, each longest sentence first.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import SimpleQueue
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nmt.decode.beam import Finished, TargetRules
from nmt.decode.compiled import CompiledPrograms
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
from nmt.decode.steering.arrays import SteeringShape
from nmt.errors import UserError
from nmt.models.incremental import InferenceModel

STEPS = 16  # of a search between two looks at what has finished and who waits
CELLS_SHARE = 0.3  # of the time of a step, spent on cells of the cache where it is as long as sources are
SLACK = 8  # tokens for which smaller slots must have room, so that they do not have to grow at once
LARGER_ROOMS = 3  # for translations longer than options say, each four times as large as the one before


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

    options: SearchOptions  # what `shared_options` leaves of a request's
    buckets: tuple[int, ...]  # lengths of sources
    shards: int  # parts into which the mesh splits rows
    steering: SteeringShape | None = None  # room for the steering of a sentence


class SlotPool:
    """Slots on the device, and the sentences in them. One thread at a time may advance it, any may add jobs.

    Args:
      model: the model.
      targets: tokens that may be generated.
      settings: see `PoolSettings`.
      programs: shared by the pools of a model.
    """

    def __init__(self, model: InferenceModel, targets: TargetRules, settings: PoolSettings, programs: CompiledPrograms):
        self._model, self._targets, self._settings, self._programs = model, targets, settings, programs
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

    def fail(self, error: Exception) -> None:
        """Give the slots and all jobs up: each of them has failed with an error."""
        for job in [*self._jobs, *(occupant.job for occupant in self._occupants if occupant is not None)]:
            job.error = error
        self._jobs.clear()
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
        inputs, targets = self._slots.inputs, self._targets
        state, alive = advance_slots(
            self._model, inputs, self._slots.state, targets, jnp.int32(STEPS), jnp.int32(most_idle)
        )
        self._slots = Slots(inputs, state)
        self._deliver(np.asarray(alive), state.finished)
        self._account(shape, live, time.perf_counter() - began)

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
        return largest_batch(self._settings.options.batch_tokens, bucket, self._settings.shards)

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
        self._rearrange(started, SlotShape(rows, bucket, self._rooms(rows, bucket)[0]))

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
        """Return slots of their own for sentences that were taken, before their first step."""
        options = self._settings.options
        rows = self._start_size(8 * rows_for(len(taken), self._settings.shards))
        longest = max(len(occupant.sentence.source) for occupant in taken)
        finer, bucket = self._finer_bucket(longest), self._bucket(longest)
        if finer < bucket and self._programs.is_worthwhile(self._start_name(rows, finer)):
            bucket = finer
        sentences = [occupant.sentence for occupant in taken]
        source, length = fill_rows([list(sentence.source) for sentence in sentences], rows, bucket)
        begin = np.zeros(rows, np.int32)
        begin[: len(sentences)] = [sentence.begin for sentence in sentences]
        limits, began = row_limits(sentences, rows, self._settings.steering), time.perf_counter()
        started = start_sentences(
            self._model, source, length, begin, limits, beam=options.width, kept=options.hypotheses
        )
        jax.block_until_ready(started)
        seconds = time.perf_counter() - began
        if self._programs.note_use(self._start_name(rows, bucket), seconds) and finer < bucket:
            self._programs.add_loss(self._start_name(rows, finer), seconds * (1 - finer / bucket))
        return started

    # The shapes of slots.

    def _rooms(self, rows: int, source: int) -> list[int]:
        """Return the rooms for targets that slots may have, of which short ones must be worthwhile."""
        short, usual = target_rooms(source, self._settings.options)
        worthwhile = self._programs.is_worthwhile
        if self._settings.steering is not None:  # phrases that are forced make translations longer
            usual = [*usual, *(usual[-1] << 2 * (i + 1) for i in range(LARGER_ROOMS))]
        return [room for room in short if worthwhile(self._name(SlotShape(rows, source, room)))] + usual

    def _name(self, shape: SlotShape) -> str:
        """Return the name of the program that advances slots of a shape."""
        return f"advance-{shape.rows}x{shape.source}x{shape.steps}-{self._variant}"

    def _start_name(self, rows: int, bucket: int) -> str:
        return f"start-{rows}x{bucket}-{self._variant}"

    @cached_property
    def _variant(self) -> str:
        """All but the shape on which programs depend."""
        options = self._settings.options
        about = f"{options.width} {options.hypotheses} {options.coverage_penalty} {self._settings.steering}"
        about += str(jax.tree.structure(self._targets))
        return hashlib.sha256(about.encode()).hexdigest()[:8]

    def _finer_bucket(self, tokens: int) -> int:
        """Return a length between two buckets, three quarters of the longer one, if that suffices, else a bucket."""
        bucket = self._bucket(tokens)
        between = 3 * bucket // 4
        return between if bucket > self._settings.buckets[0] and tokens <= between else bucket

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
        steps = self._steps(SlotShape(rows, source, shape.steps), source != shape.source)
        if (rows, source, steps) != shape:
            self._rearrange(self._slots, SlotShape(rows, source, steps))

    def _steps(self, shape: SlotShape, changes: bool) -> int:
        """Return the room for targets in slots of a shape, which other sizes may change as well."""
        newest = self._newest()
        rooms = self._rooms(shape.rows, shape.source)
        fits = next((room for room in rooms if room > newest), max(newest + 1, shape.steps))
        shorter = next((room for room in rooms if room > newest + SLACK), fits)
        return fits if changes or fits > shape.steps else min(shape.steps, shorter)

    def _newest(self) -> int:
        """Return the most tokens that a live hypothesis has."""
        assert self._slots is not None
        live = np.array([occupant is not None for occupant in self._occupants])
        return int(np.where(live, np.asarray(self._slots.state.position), 0).max())

    def _compact(self) -> None:
        """Halve the slots, perhaps more than once, when at most half of them are in use and nobody waits."""
        if self._slots is None:
            return
        shape = self._slots.shape
        smaller = shape._replace(rows=rows_for(self._live_rows(), self._settings.shards))
        if smaller.rows < shape.rows and self._programs.is_worthwhile(self._name(smaller)):
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

    def _account(self, shape: SlotShape, live: int, seconds: float) -> None:
        """Note that a program ran, and what one for fewer rows, or for shorter targets, would have saved."""
        if not self._programs.note_use(self._name(shape), seconds):
            return
        rows = rows_for(live, self._settings.shards)
        if not self._waiting() and rows < shape.rows:
            self._programs.add_loss(self._name(shape._replace(rows=rows)), seconds * (1 - rows / shape.rows))
        short, (usual, *_) = target_rooms(shape.source, self._settings.options)
        if room := next((room for room in short if room > self._newest() and room < shape.steps), None):
            lost = seconds * CELLS_SHARE * (shape.steps - room) / usual
            self._programs.add_loss(self._name(shape._replace(steps=room)), lost)

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
