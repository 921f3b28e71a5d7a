"""Translating token ids: sentences into batches of few shapes, beam search over each, and scores of given targets.

The result of a sentence depends on nothing but the sentence: its limits are its own, padding takes no part, and no
expert ever drops a token. Rounding alone remains: in a batch of another shape the same numbers may be added in another
order, which can change the choice between two hypotheses whose scores agree to some six digits (three in bfloat16).
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
from jaxtyping import Array, Float32, Int

from nmt.config import DecodeConfig
from nmt.decode.beam import Finished, SearchLimits, beam_search
from nmt.decode.selection import COLUMNS
from nmt.errors import UserError
from nmt.models.incremental import InferenceModel, cache_dtype, encode, inference_model, log_probabilities
from nmt.models.transformer import Transformer
from nmt.sharding import Layout, shard_count

SHORTEST_BUCKET = 16  # positions (S) of the shortest bucket; the others double, up to the longest source
FEW_ROWS = 8  # rows of a batch where there are no more sentences than this
MARGIN = 8  # a translation is first given room for this many tokens more than its source's bucket

_search = jax.jit(beam_search, static_argnames=("beam", "kept", "steps"))
_prepare = jax.jit(partial(inference_model, multiple=COLUMNS))


@jax.jit
def _score(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    target: Int[Array, "B T"],
    target_length: Int[Array, " B"],
) -> Float32[Array, " B"]:
    return log_probabilities(model, encode(model, source, length), target, target_length).sum(axis=1)


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of the vocabulary of targets."""

    begin: int
    end: int
    forbidden: frozenset[int]  # the others that are never generated: padding, unknown, language tags


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

    def __init__(self, model: Transformer, tokens: SpecialTokens, longest: int, config: DecodeConfig, layout: Layout):
        self.tokens, self.config, self.layout = tokens, config, layout
        self.longest = max(longest, SHORTEST_BUCKET)
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
        for bucket, members in self._sort_into_buckets(sources):
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
        for bucket, members in self._sort_into_buckets(sources):
            for rows, batch in self._batches(members, bucket):
                source, length = _fill([sources[i] for i in batch], rows, bucket)
                whole = [[begin, *targets[i], self.tokens.end] for i in batch]
                positions = SHORTEST_BUCKET * -(-max(map(len, whole)) // SHORTEST_BUCKET)
                target, target_length = _fill(whole, rows, positions)
                with self.layout.use():
                    result = _score(self._model, source, length, target, target_length)
                scores[batch] = np.asarray(result)[: len(batch)]
        return scores.tolist()

    def _sort_into_buckets(self, sources: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
        """Yield the length of each bucket and the indices of its sources, longest first."""
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        if order and len(sources[order[0]]) > self.buckets[-1]:
            raise ValueError(f"a source of {len(sources[order[0]])} tokens; at most {self.buckets[-1]} are possible")
        for bucket, below in zip(self.buckets, [0, *self.buckets], strict=False):
            if members := [i for i in order if below < len(sources[i]) <= bucket]:
                yield bucket, members

    def _batches(self, members: Sequence[int], bucket: int) -> Iterator[tuple[int, list[int]]]:
        """Yield the rows of each batch and the indices of its sources.

        There are two numbers of rows only, so that few programs are compiled.
        """
        few = len(members) <= FEW_ROWS
        shards = math.prod(self.layout.mesh.shape[axis] for axis in self.layout.rules.mesh_axes("batch"))
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
        """Return the hypotheses of those sources of a batch whose search ends within a shape (B, S, T)."""
        rows, positions, steps = shape
        source, length = _fill([sources[i] for i in batch], rows, positions)
        longest = np.zeros(rows, np.int32)
        longest[: len(batch)] = [_limit(len(sources[i]) - 2, config) for i in batch]
        limits = SearchLimits(
            begin=jnp.int32(begin),
            end=jnp.int32(self.tokens.end),
            allowed=jnp.asarray(self._allowed),
            length=jnp.asarray(longest),
            length_penalty=jnp.float32(config.length_penalty),
        )
        with self.layout.use():
            result = _search(self._model, source, length, limits, beam=config.beam, kept=kept, steps=steps)
        finished, done = jax.device_get(result)
        return {i: _hypotheses(finished, row, config) for row, i in enumerate(batch) if done[row]}


def batch_rows(config: DecodeConfig, bucket: int, shards: int, few: bool = False) -> int:
    """Return the rows of a batch (B) of a bucket of so many positions, on a mesh that splits the rows in `shards`."""
    rows = FEW_ROWS if few else max(FEW_ROWS, config.batch_tokens // bucket)
    return -(-rows // shards) * shards


@dataclass(frozen=True)
class SearchShapes:
    """Shapes of a search over a batch of the longest sources, without values."""

    model: InferenceModel  # `jax.ShapeDtypeStruct`s with shardings
    rows: int  # B
    source: int  # S
    steps: int  # T, of the first cache
    beam: int  # W
    cells: int  # bytes on one device of keys and values of decoded tokens
    source_cells: int  # bytes on one device of keys and values of sources


def search_shapes(
    graph: nnx.GraphDef[Transformer], parameters: nnx.State, longest: int, config: DecodeConfig
) -> SearchShapes:
    """Return the shapes of a search; its mesh is to be set.

    Args:
      graph: the structure of a model.
      parameters: its parameters, `jax.ShapeDtypeStruct`s with shardings.
      longest: tokens of the longest source.
      config: beam and limits.
    """
    model = nnx.merge(graph, parameters)
    prepared = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(_prepare, model),
        _prepare.lower(model).compile().output_shardings,
    )
    bucket = _buckets(max(longest, SHORTEST_BUCKET))[-1]
    rows, steps = batch_rows(config, bucket, shard_count("batch")), min(bucket + MARGIN, _limit(bucket - 2, config) + 1)
    heads, width = prepared.layers[0].layer.self_attention.wq.get_value().shape[1:]
    cell_bytes = 2 * len(prepared.layers) * heads * width * cache_dtype(prepared.output.dtype).itemsize
    device_bytes = rows * cell_bytes // (shard_count("batch") * shard_count("heads"))
    return SearchShapes(
        prepared, rows, bucket, steps, config.beam, steps * config.beam * device_bytes, bucket * device_bytes
    )


def lower_search(shapes: SearchShapes) -> jax.stages.Lowered:
    """Return the program that translates a batch, ready to be compiled; its mesh is to be set."""

    def abstract(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    allowed, penalty = abstract(shapes.model.vocabulary, dtype=bool), abstract(dtype=jnp.float32)
    limits = SearchLimits(abstract(), abstract(), allowed, abstract(shapes.rows), penalty)
    source, length = abstract(shapes.rows, shapes.source), abstract(shapes.rows)
    return _search.lower(shapes.model, source, length, limits, beam=shapes.beam, kept=1, steps=shapes.steps)


def _buckets(longest: int) -> list[int]:
    """Return the lengths of buckets: 16, 32, 64 and so on, the last of them `longest`."""
    buckets = [SHORTEST_BUCKET]
    while buckets[-1] < longest:
        buckets.append(min(2 * buckets[-1], longest))
    return buckets


def _limit(pieces: int, config: DecodeConfig) -> int:
    """Return the most tokens that a source of so many pieces may become."""
    return int(config.max_length_ratio * pieces) + config.max_length_extra


def _fill(sequences: Sequence[Sequence[int]], rows: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences as int32 [B,S] for so many rows and positions, and their lengths, int32 [B]."""
    table, lengths = np.zeros((rows, positions), np.int32), np.zeros(rows, np.int32)
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
