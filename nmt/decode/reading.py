"""Reading given targets with a model: log probabilities of their tokens, and their attention to sources.

The shape in which a pair is read depends on the pair alone, but for the number of rows, so that its result does, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float32, Int

from nmt.config import DecodeConfig
from nmt.decode.options import SearchOptions
from nmt.decode.shapes import SHORTEST_BUCKET, largest_batch, rows_for, source_buckets
from nmt.decode.slots import fill_rows
from nmt.models.incremental import InferenceModel, encode, log_probabilities, target_attention
from nmt.models.positions import LearnedPositions
from nmt.sharding import Layout, shard_count

Tokens = Sequence[int]
Progress = Callable[[Sequence[int]], None]  # told the indices of pairs as they are read
_Program = Callable[..., jax.Array]


@jax.jit
def _read_scores(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    target: Int[Array, "B T"],
    target_length: Int[Array, " B"],
) -> Float32[Array, "B T-1"]:
    return log_probabilities(model, encode(model, source, length), target, target_length)


@partial(jax.jit, static_argnames=("layer",))
def _read_attention(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    target: Int[Array, "B T"],
    target_length: Int[Array, " B"],
    *,
    layer: int,
) -> Float32[Array, "B T-1 S"]:
    return target_attention(model, encode(model, source, length), target, target_length, layer)


@dataclass(frozen=True)
class TargetReader:
    """Reads targets with one model.

    Attributes:
      model: the model.
      layout: the devices that it is on.
      end: the token that ends a target.
      longest_source: most tokens of a source, those around its pieces included.
      config: how much is read at once, and how long targets may be.
    """

    model: InferenceModel
    layout: Layout
    end: int
    longest_source: int
    config: DecodeConfig

    @property
    def longest_target(self) -> int:
        """The tokens of the longest target, its end included: as long as a source, or as a search gives, may be.

        A model with learnt positions has no more than those.
        """
        options = SearchOptions.from_config(self.config)
        longest = max(self.longest_source, options.max_tokens(self.longest_source - 2) + 1)
        positions = self.model.positions
        return min(longest, positions.table[...].shape[0]) if isinstance(positions, LearnedPositions) else longest

    @property
    def layers(self) -> int:
        """The number of decoder layers."""
        return len(self.model.layers)

    def log_probabilities(
        self, sources: Sequence[Tokens], targets: Sequence[Tokens], begin: int, progress: Progress | None = None
    ) -> list[Float32[np.ndarray, " _"]]:
        """Return log p(token | tokens before it, source) of every token of each target, and of its end.

        Args:
          sources: token ids, tag and end included.
          targets: token ids, begin and end not included.
          begin: the decoder's first input.
          progress: told the indices of pairs as they are read.

        Returns:
          For a target of n tokens natural logarithms, float32 [n+1].
        """
        found: dict[int, np.ndarray] = {}
        for batch, result in self._read(_read_scores, sources, targets, begin):
            found |= {i: result[row, : len(targets[i]) + 1] for row, i in enumerate(batch)}
            if progress:
                progress(batch)
        return [found[i] for i in range(len(sources))]

    def attention(
        self, sources: Sequence[Tokens], targets: Sequence[Tokens], begin: int, layer: int
    ) -> list[Float32[np.ndarray, "_ _"]]:
        """Return the attention to a source while each token of its target is predicted, the mean over heads.

        Args:
          sources: token ids, tag and end included.
          targets: token ids, begin and end not included.
          begin: the decoder's first input.
          layer: the decoder layer, from 0.

        Returns:
          For a source of m tokens and a target of n shares that add up to 1 over the source, float32 [n+1,m].
        """
        found: dict[int, np.ndarray] = {}
        for batch, result in self._read(partial(_read_attention, layer=layer), sources, targets, begin):
            found |= {i: result[row, : len(targets[i]) + 1, : len(sources[i])] for row, i in enumerate(batch)}
        return [found[i] for i in range(len(sources))]

    def _read(
        self, program: _Program, sources: Sequence[Tokens], targets: Sequence[Tokens], begin: int
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield the indices of the pairs of a batch, and what a program makes of them, row by row."""
        with self.layout.use():
            shards = shard_count("batch")
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            positions = _bucket(len(source), self.longest_source), _bucket(len(target) + 2, self.longest_target + 1)
            shapes.setdefault(positions, []).append(i)
        for positions, members in sorted(shapes.items(), reverse=True):
            most = largest_batch(self.config.batch_tokens, max(positions), shards)
            for start in range(0, len(members), most):
                batch = members[start : start + most]
                rows = rows_for(len(batch), shards)
                arrays = (
                    *fill_rows([list(sources[i]) for i in batch], rows, positions[0]),
                    *fill_rows([[begin, *targets[i], self.end] for i in batch], rows, positions[1]),
                )
                with self.layout.use():
                    yield batch, np.asarray(program(self.model, *arrays))


def _bucket(length: int, longest: int) -> int:
    """Return the positions of a sequence: a bucket of those for `longest`, beyond which they double further."""
    buckets = source_buckets(max(longest, SHORTEST_BUCKET))
    return next((bucket for bucket in buckets if bucket >= length), 1 << max(0, length - 1).bit_length())
