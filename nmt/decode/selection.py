"""Choosing the best one-token extensions of hypotheses, exactly, without sorting the vocabulary."""

import jax
import jax.numpy as jnp

COLUMNS = 128  # logits are laid out in so many columns; their number is a multiple of this


def top_k(x: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Return the n greatest of the last dimension and where they are, greatest first.

    The barrier keeps XLA from merging later slices of the two results into the operation: on CPUs its fast top-k
    would then no longer be recognised, and all of `x` be sorted.
    """
    values, index = jax.lax.optimization_barrier(jax.lax.top_k(x, n))
    return values, index


def best_extensions(
    logits: jax.Array, score: jax.Array, allowed: jax.Array, end: jax.Array, may_end: jax.Array, may_go_on: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the K best one-token extensions of the K hypotheses of each row.

    Works in two stages and is exact up to ties: the vocabulary is laid out in columns, and the K best extensions lie
    in the K columns with the greatest maxima. The end token has its own rules and joins in the second stage.

    Args:
      logits: float32 [B,K,V'], V' a multiple of `COLUMNS`; from V on they mean nothing.
      score: float32 [B,K], log probability of each hypothesis; -inf for none.
      allowed: bool [V], tokens that may be generated.
      end: int32 [], the token that ends a hypothesis.
      may_end: bool [B].
      may_go_on: bool [B].

    Returns:
      log probability float32 [B,K], best first, -inf where there are fewer than K; the hypothesis extended int32
      [B,K]; the token int32 [B,K].
    """
    rows, beam, padded = logits.shape
    depth = padded // COLUMNS
    padding = (0, padded - allowed.shape[0])
    real = jnp.pad(jnp.zeros(allowed.shape), padding, constant_values=-jnp.inf)
    score = score - jax.nn.logsumexp(logits + real, axis=-1)
    ends = jnp.where(may_end[:, None], score + logits[:, :, end], -jnp.inf)
    score = jnp.where(may_go_on[:, None], score, -jnp.inf)

    bias = jnp.where(jnp.pad(allowed.at[end].set(False), padding), 0.0, -jnp.inf).reshape(depth, COLUMNS)
    table = logits.reshape(rows, beam, depth, COLUMNS)
    maxima = (table + bias).max(axis=2) + score[..., None]
    _, place = top_k(maxima.reshape(rows, beam * COLUMNS), beam)
    owner, column = place // COLUMNS, place % COLUMNS  # [B,K]
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
