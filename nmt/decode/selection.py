"""Choosing the best one-token extensions of a beam, exactly, without sorting the vocabulary."""

import jax
import jax.numpy as jnp

COLUMNS = 128


def top_k(x: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Return the n greatest of the last dimension and where they are, greatest first.

    The barrier keeps XLA from merging later slices of the two results into the operation: on CPUs its fast top-k
    would then no longer be recognised, and all of `x` be sorted.
    """
    values, index = jax.lax.optimization_barrier(jax.lax.top_k(x, n))
    return values, index


def best_extensions(
    logits: jax.Array, scores: jax.Array, allowed: jax.Array, end: int, may_end: jax.Array, may_go_on: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, beam, padded = logits.shape
    vocabulary = allowed.shape[0]
    depth = padded // COLUMNS
    pad = jnp.where(jnp.arange(padded) < vocabulary, 0.0, -jnp.inf)
    base = scores - jax.nn.logsumexp(logits + pad, axis=-1)
    ends = jnp.where(may_end[:, None], base + logits[..., end], -jnp.inf)
    going = jnp.where(may_go_on[:, None], base, -jnp.inf)

    bias = jnp.pad(jnp.where(allowed.at[end].set(False), 0.0, -jnp.inf), (0, padded - vocabulary), constant_values=-jnp.inf)
    x = logits.reshape(rows, beam, depth, COLUMNS)
    bias = bias.reshape(depth, COLUMNS)
    maxima = ((x + bias).max(axis=2) + going[..., None]).reshape(rows, beam * COLUMNS)
    _, place = top_k(maxima, beam)
    who, column = place // COLUMNS, place % COLUMNS  # [B,K]
    row = jnp.arange(rows)[:, None]
    within = x[row[..., None], who[..., None], jnp.arange(depth), column[..., None]] + bias.T[column] + going[row, who][..., None]
    candidates = jnp.concatenate([within.reshape(rows, beam * depth), ends], axis=1)
    score, place = top_k(candidates, beam)
    ended = place >= beam * depth
    winner = jnp.minimum(place // depth, beam - 1)
    token = (place % depth) * COLUMNS + jnp.take_along_axis(column, winner, axis=1)
    parent = jnp.where(ended, place - beam * depth, jnp.take_along_axis(who, winner, axis=1))
    return score, parent, jnp.where(ended, end, token)
