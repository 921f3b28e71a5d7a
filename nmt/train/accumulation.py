"""Gradients of a batch that is computed in parts, one after the other: for batches that do not fit the memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.data.batch import Batch
from nmt.sharding import shard, store
from nmt.train.adafactor import Array, axes_of, map_parameters
from nmt.train.objective import Metrics, of_batch

Loss = Callable[[nnx.State, Batch, jax.Array, jax.Array], tuple[jax.Array, Metrics]]


def cut(batch: Batch, number: int) -> Batch:
    """Cut a batch of rows [B,...] in parts [parts, B / parts, ...]; row r goes to part r % parts.

    So every device finds its share of every part among its own rows.
    """

    def parts_of(rows: jax.Array) -> jax.Array:
        parts = rows.reshape(-1, number, *rows.shape[1:]).swapaxes(0, 1)
        return shard(parts, None, "batch", *(None for _ in rows.shape[1:]))

    return jax.tree.map(parts_of, batch)


def target_tokens(batch: Batch) -> jax.Array:
    """Return the number of target tokens, at least one, for a loss per token."""
    return jnp.maximum((batch.tgt_segment > 0).sum(), 1)


def gradients_in_parts(
    loss: Loss, parameters: nnx.State, batch: Batch, key: jax.Array, parts: int
) -> tuple[nnx.State, Metrics]:
    """Return gradients and metrics of a batch that is computed in parts, one after the other.

    Every part divides by its share of the target tokens of the whole batch, so the sum over parts is the loss per token
    of the batch, however its tokens are spread.

    Args:
      loss: a function of parameters, rows, a random key, and the number by which its sum over target tokens is to be
        divided. It returns its value over the number of parts, and metrics.
      parameters: the parameters.
      batch: the whole batch.
      key: random key; with more than one part, each has its own.
      parts: the number of parts, a divisor of the rows.
    """
    gradient = jax.grad(loss, has_aux=True)
    tokens = target_tokens(batch) / parts
    if parts == 1:
        return gradient(parameters, batch, key, tokens)

    def add(sums: nnx.State, part: tuple[jax.Array, Batch]) -> tuple[nnx.State, Metrics]:
        index, rows = part
        gradients, metrics = gradient(parameters, rows, jax.random.fold_in(key, index), tokens)
        return map_parameters(_plus, sums, gradients), metrics

    nothing = jax.tree.map(lambda weight: jnp.zeros_like(weight, jnp.float32), parameters)
    sums, metrics = jax.lax.scan(add, nothing, (jnp.arange(parts), cut(batch, parts)))
    return sums, of_batch(metrics)


def _plus(one: Array, other: Array) -> Array:
    total: jax.Array = one.get_value() + other.get_value()
    return one.replace(store(total, *axes_of(one)))
