"""How a model knows positions: added to embeddings, as a bias of self-attention's logits, or as rotary embeddings.

Positions are those of a token in its sequence, not in its row, so packed sequences do not know of each other.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from nmt.config import ModelConfig
from nmt.errors import UserError
from nmt.models.embedding import look_up
from nmt.sharding import left_to_xla

# Added to embeddings.


def sinusoids(length: int, width: int) -> np.ndarray:
    """Return sinusoidal positions [length, M]: sines in the first half, cosines in the second (Tensor2Tensor)."""
    frequency = 10_000.0 ** -(np.arange(width // 2) / max(width // 2 - 1, 1))
    angle = np.arange(length)[:, None] * frequency
    table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return np.pad(table, ((0, 0), (0, width % 2))).astype(np.float32)


def interleaved_sinusoids(length: int, width: int) -> np.ndarray:
    """Return sinusoidal positions [length, M]: sines and cosines in turn (Vaswani et al. 2017, section 3.5)."""
    angle = np.arange(length)[:, None] * 10_000.0 ** -(np.arange(0, width, 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(length, -1)[:, :width].astype(np.float32)


class FixedPositions(nnx.Module):
    """Sinusoids, of the layout of a function (length, width) -> table."""

    def __init__(self, config: ModelConfig, layout: Callable[[int, int], np.ndarray]):
        self.width, self.layout = config.width, layout

    def add(self, x: Float[Array, "B S M"], position: Int[Array, "B S"], longest: int) -> Float[Array, "B S M"]:
        """Return x [B,S,M] with positions, int32 [B,S], all below `longest`, added."""
        return x + look_up(jnp.asarray(self.layout(longest, self.width)), position)


class LearnedPositions(nnx.Module):
    """A learnt table, one for source and target; drawn from Normal(0, 1/M) as in fairseq."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        shape = (config.max_positions, config.width)
        table = config.width**-0.5 * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.table = nnx.Param(table, logical_axes=(None, "embed"))

    def add(self, x: Float[Array, "B S M"], position: Int[Array, "B S"], longest: int) -> Float[Array, "B S M"]:
        """Return x [B,S,M] with positions, int32 [B,S], all below `longest`, added.

        Raises:
          UserError: the table is shorter than `longest`.
        """
        rows = self.table[...].shape[0]
        if longest > rows:
            raise UserError(
                f"model.max_positions={rows} is the end of the learnt positions, and {longest} are asked for: shorten "
                "data.source_length and data.target_length, or when translating lower decode.max_length_ratio"
            )
        return x + look_up(self.table[...], position)


class NoPositions(nnx.Module):
    """Nothing is added to embeddings: attention knows the positions."""

    def add(self, x: Float[Array, "B S M"], position: Int[Array, "B S"], longest: int) -> Float[Array, "B S M"]:
        """Return x."""
        return x


AddedPositions = FixedPositions | LearnedPositions | NoPositions


def added_positions(config: ModelConfig, rngs: nnx.Rngs) -> AddedPositions:
    """Return the positions that a model adds to embeddings."""
    if config.positions == "learned":
        return LearnedPositions(config, rngs)
    layouts = {"sinusoidal": sinusoids, "sinusoidal_interleaved": interleaved_sinusoids}
    return FixedPositions(config, layouts[config.positions]) if config.positions in layouts else NoPositions()


# Added to the logits of self-attention.


def relative_buckets(buckets: int, distance: int, bidirectional: bool) -> np.ndarray:
    """Return the bucket, int32 [2*distance+1], of key position minus query position from -distance to distance.

    Half of the buckets are single distances, the rest grow logarithmically up to `distance`, from which all share the
    last one; in an encoder, half are for what comes before and half for what comes after (Raffel et al. 2020,
    arXiv:1910.10683, section 2.1; the rounding is that of T5's code). Nothing comes after in a decoder.
    """
    offset = np.arange(-distance, distance + 1)
    share = buckets // 2 if bidirectional else buckets
    away = np.abs(offset) if bidirectional else np.maximum(-offset, 0)
    exact = share // 2
    # The small term keeps whole logarithms whole.
    growth = np.log(np.maximum(away, 1) / exact) / math.log(distance / exact) * (share - exact) + 1e-9
    bucket = np.where(away < exact, away, np.minimum(exact + np.floor(growth), share - 1))
    return (bucket + (bidirectional & (offset > 0)) * share).astype(np.int32)


class RelativeBias(nnx.Module):
    """T5's bias of attention logits by the distance of key and query: one table for all layers of a stack."""

    def __init__(self, config: ModelConfig, decoder: bool, rngs: nnx.Rngs):
        # T5 draws the table as it draws embeddings; these have unit variance only after their factor sqrt(M).
        table = config.width**-0.5 * jax.random.normal(rngs.params(), (config.relative_buckets, config.heads))
        self.table = nnx.Param(table, logical_axes=(None, "heads"))
        self.distance, self.decoder = config.relative_distance, decoder

    def add(
        self, bias: Float[Array, "#B 1 #T #S"], query: Int[Array, "#B #T"] | None, key: Int[Array, "#B S"] | None
    ) -> Float[Array, "#B A T S"]:
        """Return a bias [B,1,T,S] plus that of positions, [B,A,T,S], for queries at [B,T] and keys at [B,S]."""
        assert query is not None
        assert key is not None
        buckets = relative_buckets(self.table[...].shape[0], self.distance, bidirectional=not self.decoder)
        by_offset = self.table[...][buckets].T  # [A, 2*distance+1]
        offset = jnp.clip(key[:, None, :] - query[:, :, None], -self.distance, self.distance)
        pair_bias = left_to_xla(lambda table, at: table[:, at].swapaxes(0, 1), ("batch", "heads", None, None))
        return bias + pair_bias(by_offset, offset + self.distance)


class NoBias(nnx.Module):
    """Logits do not depend on positions."""

    def add(
        self, bias: Float[Array, "#B 1 #T #S"], query: Int[Array, "#B #T"] | None, key: Int[Array, "#B S"] | None
    ) -> Float[Array, "#B 1 #T #S"]:
        """Return the bias."""
        return bias


PositionBias = RelativeBias | NoBias


def position_bias(config: ModelConfig, decoder: bool, rngs: nnx.Rngs) -> PositionBias:
    """Return the bias by position of the self-attention of a stack."""
    return RelativeBias(config, decoder, rngs) if config.positions == "relative" else NoBias()


# Applied to queries and keys of self-attention.


def rotate(x: Float[Array, "B T A D"], position: Shaped[Array, "B T"] | None) -> Float[Array, "B T A D"]:
    """Apply rotary embeddings to heads x [B,T,A,D] at positions [B,T] (Su et al. 2021, arXiv:2104.09864).

    Components i of the first and of the second half of a head are rotated together, by position * 10000^(-2i/D).
    """
    assert position is not None
    half = x.shape[-1] // 2
    frequency = (10_000.0 ** -(np.arange(half) / half)).astype(np.float32)
    angle = position[..., None, None] * frequency
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
