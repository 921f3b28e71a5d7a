"""Translating token ids by beam search, and scores of given targets, from any number of threads at once.

The result of a sentence depends on nothing but the sentence: its limits are its own, padding takes no part, and no
expert ever drops a token. On one CPU a dense model gives the same bits whatever shares its slots. Elsewhere rounding
remains: in slots of another shape the same numbers may be added in another order, which can change the choice between
two hypotheses whose scores agree to some six digits (three in bfloat16).
"""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from nmt.config import DecodeConfig
from nmt.decode.compiled import CompiledPrograms
from nmt.decode.options import SearchOptions
from nmt.decode.pool import Hypothesis, Job, PoolSettings, SlotPool
from nmt.decode.reading import TargetReader
from nmt.decode.requests import Sentence, SpecialTokens, shared_options, target_rules
from nmt.decode.shapes import SHORTEST_BUCKET, prepare_model, source_buckets
from nmt.decode.steering.arrays import SteeredSentences, SteeringShape, steering_shape
from nmt.decode.steering.request import SentenceSteering
from nmt.decode.steering.steps import SteeringTokens
from nmt.errors import UserError
from nmt.models.precision import Precision
from nmt.models.transformer import Transformer
from nmt.sharding import Layout, shard_count

_PoolKey = tuple[SearchOptions, SteeringShape | None]


class Searcher:
    """Beam search with one model; any number of threads may search at once, and share the slots.

    Args:
      model: the model, whose parameters live on the mesh of `layout`.
      tokens: the special tokens.
      longest: tokens of the longest source.
      config: beam and limits.
      layout: the devices.
      precision: of the model's matrices; None: the type that it computes in.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: SpecialTokens,
        longest: int,
        config: DecodeConfig,
        layout: Layout,
        precision: Precision | None = None,
    ):
        self.tokens, self.config, self.layout = tokens, config, layout
        self.longest = max(longest, SHORTEST_BUCKET)
        self.buckets = source_buckets(self.longest)
        with layout.use():
            self._model = prepare_model(model, precision=precision)
            self._shards = shard_count("batch")
        self.reader = TargetReader(self._model, layout, tokens.end, self.longest, config)
        self._pools: dict[_PoolKey, SlotPool] = {}
        self._programs = CompiledPrograms(self._model)
        self._steering: SteeringTokens | None = None  # once a search is steered
        self._turn = threading.Condition()
        self._driven = False  # whether a thread is advancing the pools

    def search(
        self,
        sources: Sequence[Sequence[int]],
        *,
        options: SearchOptions | None = None,
        begin: int | None = None,
        steering: SteeredSentences | None = None,
        progress: Callable[[Sequence[int]], None] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate.

        Args:
          sources: token ids, tag and end included, none longer than the longest bucket.
          options: how to search; None: as the searcher's `config` says.
          begin: the decoder's first input, such as a language's tag; None: that of the special tokens.
          steering: prefixes and phrases of the sentences; None: none have any.
          progress: told the indices of sources as they are done.

        Returns:
          Hypotheses of every source, best first: at least one, and `options.hypotheses` at most.

        Raises:
          UserError: the model gives no finite probabilities, or the device's memory does not suffice.
        """
        options = options or SearchOptions.from_config(self.config)
        begin = self.tokens.begin if begin is None else begin
        self._check_lengths(sources)
        plans = steering.plans if steering is not None else [SentenceSteering()] * len(sources)
        sentences = [Sentence(i, source, begin, options, plans[i]) for i, source in enumerate(sources)]
        self._steering = self._steering if steering is None else steering.tokens
        found: dict[int, list[Hypothesis]] = {}
        # Sentences without any steering go through the programs of all others.
        for steered in (False, True):
            job = Job(sentence for sentence in sentences if bool(sentence.steering) == steered)
            if job.left:
                shape = steering_shape(plans) if steered else None
                self._finish((shared_options(options), shape), job, progress or (lambda _: None))
            found |= job.found
        return [found[i] for i in range(len(sources))]

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, begin: int | None = None
    ) -> list[float]:
        """Return log p(target | source), its end counted, of targets given without begin and end, by reading them.

        `begin` is the decoder's first input; None: that of the special tokens.
        """
        begin = self.tokens.begin if begin is None else begin
        self._check_lengths(sources)
        found = self.reader.log_probabilities(sources, targets, begin)
        return [float(logarithms.sum(dtype=np.float64)) for logarithms in found]

    def _check_lengths(self, sources: Sequence[Sequence[int]]) -> None:
        if (most := max(map(len, sources), default=0)) > self.buckets[-1]:
            raise ValueError(f"a source of {most} tokens; at most {self.buckets[-1]} are possible")

    def _pool(self, key: _PoolKey) -> SlotPool:
        """Return the slots of sentences with these options; the lock is held. Idle ones of others are given up."""
        options, shape = key
        if key not in self._pools:
            if not self._driven:
                self._pools = {key: pool for key, pool in self._pools.items() if pool.busy}
            settings = PoolSettings(options, tuple(self.buckets), self._shards, shape)
            steering = None if shape is None else self._steering
            targets = target_rules(options, self.tokens, self._model.vocabulary, steering)
            self._pools[key] = SlotPool(self._model, targets, settings, self._programs)
        return self._pools[key]

    def _finish(self, key: _PoolKey, job: Job, progress: Callable[[Sequence[int]], None]) -> None:
        """Wait until a job is done; whichever thread comes first advances the searches of all of them."""
        told = 0
        with self._turn:
            self._pool(key).add(job)
            try:
                while not job.done:
                    if self._driven:
                        self._turn.wait()
                    else:
                        self._advance()
                    if new := list(job.found)[told:]:
                        told += len(new)
                        progress(new)
            finally:
                job.dropped = not job.done
        if job.error is not None:
            raise job.error

    def _advance(self) -> None:
        """Advance every pool, with the lock given up meanwhile."""
        self._driven = True
        pools = [pool for pool in self._pools.values() if pool.busy]
        self._turn.release()
        try:
            for pool in pools:
                with self.layout.use():
                    _advance_or_fail(pool)
        finally:
            self._turn.acquire()
            self._driven = False
            self._turn.notify_all()


def _advance_or_fail(pool: SlotPool) -> None:
    """Advance a pool; an error is that of its own jobs, whichever thread advances it."""
    try:
        pool.advance()
    except Exception as error:
        pool.fail(_explained(error))
    except BaseException:
        pool.reset()
        raise


def _explained(error: Exception) -> Exception:
    if "RESOURCE_EXHAUSTED" not in str(error):
        return error
    return UserError(
        "the device's memory does not suffice for these slots: lower decode.batch_tokens (--batch-tokens) or the beam"
    )
