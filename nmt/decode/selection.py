"""Choosing the best one-token extensions of hypotheses, exactly, without sorting the vocabulary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nmt.models.weight_matrix import log_sum_last

COLUMNS = 128  # logits are laid out in so many columns; their number is a multiple of this


def top_k(x: Float[Array, "B R"], n: int) -> tuple[Float[Array, "B {n}"], Int[Array, "B {n}"]]:
    """Return the n greatest of each row of x [B,R] and their indices, [B,n] each, greatest first.

    The barrier keeps XLA from merging later slices of the two results into the operation: on CPUs its fast top-k
    would then no longer be recognised, and all of `x` be sorted.
    """
    values, index = jax.lax.optimization_barrier(jax.lax.top_k(x, n))
    return values, index


def log_total(logits: Float[Array, "B W Q"], vocabulary: int) -> Float[Array, "B W"]:
    """Return the logarithm of the sum of exp(logits) over the first V of Q columns."""
    real = jnp.where(jnp.arange(logits.shape[-1]) < vocabulary, 0.0, -jnp.inf)
    return log_sum_last(logits + real)


def best_extensions(
    logits: Float[Array, "B W Q"],
    score: Float[Array, "B W"],
    allowed: Bool[Array, " V"],
    end: Int[Array, ""],
    may_end: Bool[Array, " B"],
    may_go_on: Bool[Array, " B"],
    total: Float[Array, "B W"] | None = None,
) -> tuple[Float[Array, "B W"], Int[Array, "B W"], Int[Array, "B W"]]:
    """Return the W best one-token extensions of the W hypotheses of each row.

    Works in two stages and is exact up to ties: the vocabulary is laid out in columns, and the W best extensions lie
    in the W columns with the greatest maxima. The end token has its own rules and joins in the second stage.

    Args:
      logits: float32 [B,W,Q], Q a multiple of `COLUMNS`; meaningless from V on.
      score: float32 [B,W], log probability of each hypothesis; -inf for none.
      allowed: bool [V], tokens that may be generated.
      end: int32 [], the token that ends a hypothesis.
      may_end: bool [B], whether the hypotheses of a row may end here.
      may_go_on: bool [B], whether they may be extended by another token.
      total: float32 [B,W], the logarithm of the sum that probabilities are divided by; None: that of the logits.

    Returns:
      Log probabilities, float32 [B,W], best first, -inf where there are fewer than W; the hypothesis that each extends,
      int32 [B,W]; the token that it adds, int32 [B,W].
    """
    rows, beam, padded = logits.shape
    depth = padded // COLUMNS
    padding = (0, padded - allowed.shape[0])
    score = score - (log_total(logits, allowed.shape[0]) if total is None else total)
    ends = jnp.where(may_end[:, None], score + logits[:, :, end], -jnp.inf)
    score = jnp.where(may_go_on[:, None], score, -jnp.inf)

    bias = jnp.where(jnp.pad(allowed.at[end].set(False), padding), 0.0, -jnp.inf).reshape(depth, COLUMNS)
    table = logits.reshape(rows, beam, depth, COLUMNS)
    maxima = (table + bias).max(axis=2) + score[..., None]
    _, place = top_k(maxima.reshape(rows, beam * COLUMNS), beam)
    owner, column = place // COLUMNS, place % COLUMNS
    row = jnp.arange(rows)[:, None]
    inside = table[row[..., None], owner[..., None], jnp.arange(depth), column[..., None]]
    inside = inside + bias.T[column] + score[row, owner][..., None]

    candidates = jnp.concatenate([inside.reshape(rows, beam * depth), ends], axis=1)
    best, place = top_k(candidates, beam)
    is_end = place >= beam * depth
    which = jnp.minimum(place // depth, beam - 1)
    token = place % depth * COLUMNS + column[row, which]
    parent = jnp.where(is_end, place - beam * depth, owner[row, which])
    return best, parent.astype(jnp.int32), jnp.where(is_end, end, token).astype(jnp.int32)
