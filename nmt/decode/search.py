"""Translating token ids: sentences into batches of few shapes, beam search over each, and scores of given targets.

The result of a sentence depends on nothing but the sentence: its limits are its own, padding takes no part, and no
expert ever drops a token. What remains is rounding: another shape of batch may add the same numbers in another order,
which can turn the choice between two hypotheses whose scores agree to some six digits (three in bfloat16).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nmt.config import DecodeConfig
from nmt.decode.beam import Finished, Rules, beam_search
from nmt.decode.selection import COLUMNS
from nmt.errors import UserError
from nmt.models.incremental import InferenceModel, cache_dtype, encode, inference_model, log_probabilities
from nmt.models.transformer import Transformer
from nmt.sharding import Layout, parts

SHORTEST = 16  # slots of the shortest bucket; the others double, up to the longest source
FEW = 8  # rows of a batch where there are no more sentences than this
MARGIN = 8  # a translation is first given room for this many tokens more than its source's bucket

_search = jax.jit(beam_search, static_argnames=("beam", "kept", "steps"))
_prepare = jax.jit(partial(inference_model, multiple=COLUMNS))


@jax.jit
def _score(
    model: InferenceModel, source: jax.Array, length: jax.Array, target: jax.Array, target_length: jax.Array
) -> jax.Array:
    return log_probabilities(model, encode(model, source, length), target, target_length).sum(axis=1)


@dataclass(frozen=True)
class Tokens:
    """The special tokens of the vocabulary of targets."""

    begin: int
    end: int
    forbidden: frozenset[int]  # others that are never generated: padding, unknown, language tags


@dataclass(frozen=True)
class Hypothesis:
    """One translation of one source."""

    tokens: list[int]  # without begin and end
    score: float  # log probability over GNMT's length normaliser
    log_probability: float  # natural logarithm; the end is counted


class Searcher:
    """Beam search with one model.

    Args:
      model: the model, whose parameters live on the mesh of `layout`.
      tokens: the special tokens.
      longest: tokens of the longest source.
      config: beam and limits.
      layout: the devices.
    """

    def __init__(self, model: Transformer, tokens: Tokens, longest: int, config: DecodeConfig, layout: Layout):
        self.tokens, self.config, self.layout = tokens, config, layout
        self.longest = max(longest, SHORTEST)
        self.buckets = _buckets(self.longest)
        with layout.use():
            self._model = _prepare(model)
        self._allowed = np.isin(np.arange(self._model.vocabulary), list(tokens.forbidden | {tokens.begin}), invert=True)

    def search(
        self,
        sources: Sequence[Sequence[int]],
        *,
        config: DecodeConfig | None = None,
        hypotheses: int = 1,
        begin: int | None = None,
        progress: Callable[[Sequence[int]], None] | None = None,
    ) -> list[list[Hypothesis]]:
        """Translate.

        Args:
          sources: token ids, tag and end included, none longer than the longest bucket.
          config: instead of the searcher's own.
          hypotheses: most that are returned for a source, no more than the beam.
          begin: the decoder's first input, such as a language's tag; None: that of the special tokens.
          progress: told the indices of sources as they are done.

        Returns:
          Hypotheses of every source, best first, at least one.

        Raises:
          UserError: the model gives no finite probabilities.
        """
        config = config or self.config
        begin = self.tokens.begin if begin is None else begin
        if not 1 <= hypotheses <= config.beam:
            raise ValueError(f"{hypotheses} hypotheses of a beam of {config.beam}")
        found: dict[int, list[Hypothesis]] = {}
        for bucket, members in self._by_bucket(sources):
            # Nearly all translations fit a small cache, whose cells cost time at every step; the rest have a second go.
            full = _limit(bucket - 2, config) + 1
            for room in sorted({min(bucket + MARGIN, full), full}):
                for rows, batch in self._batches(members, bucket):
                    done = self._search(sources, batch, (rows, bucket, room), config, hypotheses, begin)
                    found |= done
                    if progress:
                        progress(list(done))
                members = [i for i in members if i not in found]
        return [found[i] for i in range(len(sources))]

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, begin: int | None = None
    ) -> list[float]:
        """Return log p(target | source), its end counted, of targets given without begin and end, by reading them.

        `begin` is the decoder's first input; None: that of the special tokens.
        """
        begin = self.tokens.begin if begin is None else begin
        scores = np.zeros(len(sources))
        for bucket, members in self._by_bucket(sources):
            for rows, batch in self._batches(members, bucket):
                source, length = _fill([sources[i] for i in batch], rows, bucket)
                whole = [[begin, *targets[i], self.tokens.end] for i in batch]
                slots = SHORTEST * -(-max(map(len, whole)) // SHORTEST)
                target, target_length = _fill(whole, rows, slots)
                with self.layout.use():
                    result = _score(self._model, source, length, target, target_length)
                scores[batch] = np.asarray(result)[: len(batch)]
        return scores.tolist()

    def _by_bucket(self, sources: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
        """Yield slots and the indices of the sources that fit them, longest first."""
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        if order and len(sources[order[0]]) > self.buckets[-1]:
            raise ValueError(f"a source of {len(sources[order[0]])} tokens; at most {self.buckets[-1]} are possible")
        for bucket, below in zip(self.buckets, [0, *self.buckets], strict=False):
            if members := [i for i in order if below < len(sources[i]) <= bucket]:
                yield bucket, members

    def _batches(self, members: Sequence[int], bucket: int) -> Iterator[tuple[int, list[int]]]:
        """Yield rows and the sources for them; there are two numbers of rows, so that few programs are compiled."""
        few = len(members) <= FEW
        shards = math.prod(self.layout.mesh.shape[axis] for axis in self.layout.rules.of("batch"))
        rows = batch_rows(self.config, bucket, shards, few)
        for start in range(0, len(members), rows):
            yield rows, list(members[start : start + rows])

    def _search(
        self,
        sources: Sequence[Sequence[int]],
        batch: Sequence[int],
        shape: tuple[int, int, int],
        config: DecodeConfig,
        kept: int,
        begin: int,
    ) -> dict[int, list[Hypothesis]]:
        """Return the hypotheses of those sources of a batch that are done in a shape of (rows, slots, steps)."""
        rows, slots, steps = shape
        source, length = _fill([sources[i] for i in batch], rows, slots)
        limit = np.zeros(rows, np.int32)
        limit[: len(batch)] = [_limit(len(sources[i]) - 2, config) for i in batch]
        rules = Rules(
            begin=jnp.int32(begin),
            end=jnp.int32(self.tokens.end),
            allowed=jnp.asarray(self._allowed),
            limit=jnp.asarray(limit),
            length_penalty=jnp.float32(config.length_penalty),
        )
        with self.layout.use():
            result = _search(self._model, source, length, rules, beam=config.beam, kept=kept, steps=steps)
        finished, done = jax.device_get(result)
        return {i: _hypotheses(finished, row, config) for row, i in enumerate(batch) if done[row]}


def batch_rows(config: DecodeConfig, bucket: int, shards: int, few: bool = False) -> int:
    """Return the rows of a batch of sources of so many slots, on a mesh that splits the rows in so many shards."""
    rows = FEW if few else max(FEW, config.batch_tokens // bucket)
    return -(-rows // shards) * shards


@dataclass(frozen=True)
class SearchShapes:
    """What a search over a batch of the longest sources works on; nothing of it has values."""

    model: InferenceModel  # arrays with places
    rows: int  # B
    source: int  # S
    steps: int  # T, tokens that there is room for at first
    beam: int  # K
    cells: int  # bytes on one device of keys and values of what is decoded
    source_cells: int  # bytes on one device of those of the sources


def search_shapes(
    graph: nnx.GraphDef[Transformer], parameters: nnx.State, longest: int, config: DecodeConfig
) -> SearchShapes:
    """Return what a search works on; its mesh is to be set.

    Args:
      graph: the structure of a model.
      parameters: its parameters, without values but with places.
      longest: tokens of the longest source.
      config: beam and limits.
    """
    model = nnx.merge(graph, parameters)
    prepared = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(_prepare, model),
        _prepare.lower(model).compile().output_shardings,
    )
    bucket = _buckets(max(longest, SHORTEST))[-1]
    rows, steps = batch_rows(config, bucket, parts("batch")), min(bucket + MARGIN, _limit(bucket - 2, config) + 1)
    heads, width = prepared.layers[0].layer.self_attention.wq.get_value().shape[1:]
    of_cell = 2 * len(prepared.layers) * heads * width * cache_dtype(prepared.output.dtype).itemsize
    here = rows * of_cell // (parts("batch") * parts("heads"))
    return SearchShapes(prepared, rows, bucket, steps, config.beam, steps * config.beam * here, bucket * here)


def lower_search(shapes: SearchShapes) -> jax.stages.Lowered:
    """Return the program that translates a batch, ready to be compiled; its mesh is to be set."""

    def of(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    allowed, penalty = of(shapes.model.vocabulary, dtype=bool), of(dtype=jnp.float32)
    rules = Rules(of(), of(), allowed, of(shapes.rows), penalty)
    source, length = of(shapes.rows, shapes.source), of(shapes.rows)
    return _search.lower(shapes.model, source, length, rules, beam=shapes.beam, kept=1, steps=shapes.steps)


def _buckets(longest: int) -> list[int]:
    """Return slots of 16, 32, 64 and so on, the last of them the longest."""
    buckets = [SHORTEST]
    while buckets[-1] < longest:
        buckets.append(min(2 * buckets[-1], longest))
    return buckets


def _limit(pieces: int, config: DecodeConfig) -> int:
    """Return the most tokens that a source of so many pieces may become."""
    return int(config.max_length_ratio * pieces) + config.max_length_extra


def _fill(sequences: Sequence[Sequence[int]], rows: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences as int32 [rows, slots], and their lengths [rows]."""
    table, lengths = np.zeros((rows, slots), np.int32), np.zeros(rows, np.int32)
    for row, sequence in enumerate(sequences):
        table[row, : len(sequence)] = sequence
        lengths[row] = len(sequence)
    return table, lengths


def _hypotheses(finished: Finished, row: int, config: DecodeConfig) -> list[Hypothesis]:
    """Return the finished hypotheses of a row, best first."""
    found = []
    for score, length, tokens in zip(finished.score[row], finished.length[row], finished.tokens[row], strict=True):
        if np.isfinite(score):
            normaliser = ((5 + length + 1) / 6) ** config.length_penalty
            found.append(Hypothesis(tokens[:length].tolist(), float(score), float(score * normaliser)))
    if not found:
        raise UserError("the model gives no finite probabilities: its training has diverged; use an earlier checkpoint")
    return found
