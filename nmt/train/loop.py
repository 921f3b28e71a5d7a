"""The training loop: steps, reports and checkpoints; a run that was stopped goes on from its newest checkpoint."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import jax
import numpy as np
from etils import epath
from grain import DatasetIterator
from jax.sharding import Mesh

from nmt.config import Recipe, VocabularySizes
from nmt.data.batch import Batch
from nmt.data.pipeline import enter_stage
from nmt.errors import UserError
from nmt.sharding.hosts import ALONE, Hosts, Vote
from nmt.train.checkpoints import Checkpoints, Progress
from nmt.train.curriculum import Curriculum
from nmt.train.expert_load import UsageCounter
from nmt.train.objective import Metrics
from nmt.train.preemption import Preemption
from nmt.train.step import Scalars, Trainer, TrainState, make_trainer
from nmt.train.telemetry import Recorder, Silence, StepWindow, TrainingWatcher, flatten
from nmt.train.usage import Usage, drop_usage_after, write_usage


class Outcome(Enum):
    """Why training ended."""

    FINISHED = "finished"
    OUT_OF_TIME = "out of time"
    PREEMPTED = "preempted"
    CONVERGED = "the development loss no longer falls"


# The wishes of a host after a step; where hosts differ, the largest counts.
_GO_ON, _NO_TIME, _STOP = 0, 1, 2


@dataclass(frozen=True)
class TrainingResult:
    """How training ended."""

    outcome: Outcome
    progress: Progress


@dataclass(frozen=True)
class Data:
    """The batches that a run learns from, and the development set."""

    batches: DatasetIterator
    dev: Callable[[], Iterable[Batch]]  # the development set, from its beginning
    curriculum: Curriculum | None = None


@dataclass(frozen=True)
class Machines:
    """The devices and hosts that train together."""

    mesh: Mesh  # already set by `jax.set_mesh`
    hosts: Hosts = ALONE  # all of them call `train`; host 0 writes metrics and tables


def is_finished(recipe: Recipe, progress: Progress) -> bool:
    """Return whether a run that has come so far has nothing left to do."""
    minutes = recipe.train.max_minutes
    return progress.step >= recipe.train.steps or (minutes is not None and progress.seconds >= 60 * minutes)


def train(
    recipe: Recipe,
    run: epath.PathLike,
    vocabulary: VocabularySizes,
    data: Data,
    machines: Machines,
    watcher: TrainingWatcher,
) -> TrainingResult:
    """Train until the last step, the end of its time, or a signal to stop; resume from the newest checkpoint.

    Args:
      recipe: the resolved recipe.
      run: the run's folder.
      vocabulary: V of sources and of targets.
      data: batches and the development set.
      machines: devices and hosts.
      watcher: told of every step.

    Raises:
      UserError: training has diverged, or does not fit the memory of the devices.
    """
    with _fitting(), Preemption() as preemption, Checkpoints(run, recipe.train.keep_checkpoints) as checkpoints:
        progress = checkpoints.progress()
        if is_finished(recipe, progress):
            return TrainingResult(_ending(recipe, progress), progress)
        watcher.say("compiling the train step" if progress.step == 0 else f"resuming after step {progress.step}")
        trainer = make_trainer(recipe, vocabulary, machines.mesh)
        state = trainer.initial()
        if progress.step:
            state = checkpoints.restore(state, data.batches)
        hosts = machines.hosts
        if hosts.first:
            drop_usage_after(run, progress.step)
        with Recorder(run, progress.step) if hosts.first else Silence() as recorder:
            records = _Records(epath.Path(run), checkpoints, recorder, watcher)
            return _Loop(recipe, trainer, data, records, hosts, preemption).run(state, progress)


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    """Raise UserError where the devices have not the memory that a program asks for."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not (text := str(error)).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"this does not fit the memory of the devices ({text.splitlines()[0]}): nmt-plan with the same recipe and "
            "keys shows what takes how much; less are train.tokens_per_batch with train.accumulate, model.remat, "
            "another train.optimizer, and mesh on more devices"
        ) from None


def _ending(recipe: Recipe, progress: Progress) -> Outcome:
    return Outcome.FINISHED if progress.step >= recipe.train.steps else Outcome.OUT_OF_TIME


@dataclass(frozen=True)
class _Records:
    """The places to which a run writes: its checkpoints, metrics and tables of experts, and the watcher."""

    folder: epath.Path
    checkpoints: Checkpoints
    recorder: Recorder | Silence
    watcher: TrainingWatcher


@dataclass
class _Loop:
    recipe: Recipe
    trainer: Trainer
    data: Data
    records: _Records
    hosts: Hosts
    preemption: Preemption

    def __post_init__(self) -> None:
        self.progress = Progress()  # of the steps that are accounted for
        self.layers = self.recipe.model.sparse_layers
        self.window = StepWindow(self.recipe.data.streams, self.layers)
        self.usage, self.uncounted = UsageCounter(), 1  # the first step that is in no table yet
        self.clock = time.monotonic()
        self.converged = False
        self.vote = Vote(self.hosts)
        self.step: Callable[..., Any] | None = None
        self.evaluate: Callable[..., Metrics] | None = None

    def run(self, state: TrainState, progress: Progress) -> TrainingResult:
        """Run steps from a state, which has come so far, until there is a reason to end.

        A step is dispatched before the one before it is accounted for, so that the host prepares batches and writes
        reports while the devices compute. At a checkpoint nothing is under way: the state, the position of the data and
        the counts then belong together.
        """
        every, last = self.recipe.train.checkpoint_every, self.recipe.train.steps
        self.progress, self.uncounted = progress, progress.step + 1
        step = saved = progress.step
        running: tuple[Metrics, Scalars] | None = None
        measured = self.hosts.broadcast("the last development loss", lambda: self.records.recorder.has("dev", step))
        if step and step % every == 0 and not measured:
            self._dev(state)  # whoever wrote this checkpoint was stopped before it could
            self.clock = time.monotonic()
        if step:
            self._advance()
        while True:
            due = step % every == 0 and step > saved
            if due or step >= last or self.converged or self._wanted():
                if running is not None:
                    self._account(*running)
                    running = None
                if due or step > saved:
                    self._save(state)
                    saved = step
                if step >= last or self._wanted():
                    return TrainingResult(self._outcome(), self.progress)
                if self.converged:
                    return TrainingResult(Outcome.CONVERGED, self.progress)
            batch = self.trainer.place(next(self.data.batches))
            if self.step is None:
                self.step = self.hosts.compile(self.trainer.step, state, batch)
            state, metrics, scalars = self.step(state, batch)
            self.vote.cast(self._wish())
            self.usage.add(metrics.routing)
            if running is not None:
                self._account(*running)
            running, step = (metrics, scalars), step + 1

    def _wish(self) -> int:
        """Return the wish of this host: to go on, or why not. The time is that of host 0."""
        if self.preemption:
            return _STOP
        minutes = self.recipe.train.max_minutes
        late = self.hosts.first and minutes is not None and self.progress.seconds >= 60 * minutes
        return _NO_TIME if late else _GO_ON

    def _wanted(self) -> int:
        """Return the wish of the hosts together."""
        return self.vote.result(self._wish())

    def _outcome(self) -> Outcome:
        return Outcome.PREEMPTED if self._wanted() == _STOP else _ending(self.recipe, self.progress)

    def _account(self, metrics: Metrics, scalars: Scalars) -> None:
        """Wait for a step, count it, show it, and write the window when one is full."""
        jax.block_until_ready(metrics)
        self.vote.count()
        now = time.monotonic()
        self.window.add(metrics, scalars, now - self.clock)
        self.progress = replace(
            self.progress,
            step=self.progress.step + 1,
            seconds=self.progress.seconds + now - self.clock,
            source_tokens=self.progress.source_tokens + int(metrics.source_tokens),
            target_tokens=self.progress.target_tokens + int(metrics.tokens.sum()),
        )
        self.clock = now
        config = self.recipe.train
        report = self.window.report(self.progress, config.steps)
        if not np.isfinite(report.loss + report.gradient_norm):
            raise UserError(
                f"the loss is {report.loss} and the norm of the gradient {report.gradient_norm} "
                f"at step {self.progress.step}: training has diverged; "
                "lower train.schedule.learning_rate, or raise warmup_steps, and start from an earlier checkpoint"
            )
        full = self.progress.step % config.log_every == 0 or self.progress.step == config.steps
        self.records.watcher.report(report, full)
        if full:
            self.records.recorder.write(self.progress, flatten(report), "train")
            self.window = StepWindow(self.recipe.data.streams, self.layers)

    def _save(self, state: TrainState) -> None:
        self._write_usage()  # first, so that a checkpoint that is there has its table
        self.records.recorder.keep()  # and its lines
        self.records.checkpoints.save(state, self.data.batches, self.progress)
        self._dev(state)
        self._advance()
        self.clock = time.monotonic()

    def _advance(self) -> None:
        """Enter the next stage of the curriculum, or end with the last, if it is time; called at checkpoints."""
        curriculum, step = self.data.curriculum, self.progress.step
        if curriculum is None or step % self.recipe.train.checkpoint_every:
            return
        position = self.data.batches.get_state()
        stage = position["next_stage"]
        ends = self.hosts.broadcast(
            f"the end of stage {stage + 1} at step {step}",
            lambda: curriculum.ends(stage, position["began"], step, self.records.recorder.dev),
        )
        if not ends:
            return
        if stage + 1 == len(curriculum.members):
            self.converged = True
            return
        self.records.watcher.say(
            f"step {step}: stage {stage + 1} ends, {', '.join(curriculum.members[stage + 1])} follow"
        )
        self.data.batches.set_state(enter_stage(position, stage + 1, step))

    def _write_usage(self) -> None:
        step, counts = self.progress.step, self.usage.take()
        if counts and self.hosts.first:
            directions = self.recipe.data.streams
            in_order = {stack: counts[stack] for stack in self.layers}
            write_usage(self.records.folder, Usage(self.uncounted, step, directions, self.layers, in_order))
        self.uncounted = step + 1

    def _dev(self, state: TrainState) -> None:
        """Measure the development set, with the averaged weights where there are some."""
        nll = tokens = np.zeros(len(self.recipe.data.streams))
        for number, batch in enumerate(self.data.dev()):
            if number == self.recipe.train.dev_batches:
                break
            if self.vote.now(self._wish()) == _STOP:
                return
            placed = self.trainer.place(batch)
            if self.evaluate is None:
                self.evaluate = self.hosts.compile(self.trainer.evaluate, state, placed)
            metrics = self.evaluate(state, placed)
            sums = jax.device_get((metrics.nll, metrics.tokens))
            nll, tokens = nll + sums[0], tokens + sums[1]
        if tokens.sum():
            # There is no development text of denoising, whose streams come last.
            numbers = dict(zip(self.recipe.data.directions, nll / np.maximum(tokens, 1), strict=False))
            mean = float(nll.sum() / tokens.sum())
            self.records.recorder.write(
                self.progress, {"nll": mean, **{f"nll/{d}": float(x) for d, x in numbers.items()}}, "dev"
            )
            self.records.watcher.say(f"step {self.progress.step}: development loss {mean:.3f} nats per token")
