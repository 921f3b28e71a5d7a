"""Gradients of a batch that is computed in parts, one after the other: for batches that do not fit the memory."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.data.batch import Batch
from nmt.models.moe.statistics import micro_batch_weights
from nmt.sharding import shard, store
from nmt.train.adafactor import Array, axes_of, map_parameters
from nmt.train.objective import Metrics, Part, of_batch

Loss = Callable[[nnx.State, Batch, jax.Array, Part | None], tuple[jax.Array, Metrics]]


def cut(batch: Batch, number: int) -> Batch:
    """Cut a batch of rows [B,...] in parts [parts, B / parts, ...]; row r goes to part r % parts.

    So every device finds its share of every part among its own rows.
    """

    def parts_of(rows: jax.Array) -> jax.Array:
        parts = rows.reshape(-1, number, *rows.shape[1:]).swapaxes(0, 1)
        return shard(parts, None, "batch", *(None for _ in rows.shape[1:]))

    return jax.tree.map(parts_of, batch)


def shares(parts: Batch, group_sizes: Mapping[str, int | None]) -> Part:
    """Return what every part of a batch is in the whole.

    Args:
      parts: the batch in P parts, see `cut`.
      group_sizes: by stack, tokens that are balanced on their own (N); None: those of a part, all together.

    Returns:
      numbers [P].
    """
    real = {"encoder": parts.src_segment > 0, "decoder": parts.tgt_segment > 0}
    weights, means = micro_batch_weights(real, group_sizes)
    return Part(jnp.broadcast_to(means["decoder"], len(parts.src)), weights)


def gradients_in_parts(
    loss: Loss,
    parameters: nnx.State,
    batch: Batch,
    key: jax.Array,
    parts: int,
    group_sizes: Mapping[str, int | None],
) -> tuple[nnx.State, Metrics]:
    """Return gradients and metrics of a batch that is computed in parts, one after the other.

    Every part counts by its share of the tokens, and of the groups of tokens, of the whole batch: so the sum over parts
    is the loss of the batch, however its tokens are spread.

    Args:
      loss: a function of parameters, rows, a random key, and what the rows are in the batch (None: all of it). It
        returns its value over the number of parts, and metrics.
      parameters: the parameters.
      batch: the whole batch.
      key: random key; with more than one part, each has its own.
      parts: the number of parts, a divisor of the rows.
      group_sizes: see `shares`.
    """
    gradient = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradient(parameters, batch, key, None)

    def add(sums: nnx.State, one: tuple[jax.Array, Batch, Part]) -> tuple[nnx.State, Metrics]:
        index, rows, part = one
        gradients, metrics = gradient(parameters, rows, jax.random.fold_in(key, index), part)
        return map_parameters(_plus, sums, gradients), metrics

    nothing = jax.tree.map(lambda weight: jnp.zeros_like(weight, jnp.float32), parameters)
    pieces = cut(batch, parts)
    sums, metrics = jax.lax.scan(add, nothing, (jnp.arange(parts), pieces, shares(pieces, group_sizes)))
    return sums, of_batch(metrics)


def _plus(one: Array, other: Array) -> Array:
    total: jax.Array = one.get_value() + other.get_value()
    return one.replace(store(total, *axes_of(one)))
