"""Gradients of a batch that is computed in micro-batches, one after the other: for batches that exceed the memory."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, PRNGKeyArray, Shaped

from nmt.config import Recipe
from nmt.data.batch import Batch
from nmt.models.axes import NamedArray, logical_axes, map_variables
from nmt.models.moe.statistics import micro_batch_weights
from nmt.sharding import shard, store
from nmt.train.objective import Metrics, MicroBatchShare, combine_metrics

# Parameters, rows, a random key and the share of the rows in the batch (None: all of it) to a loss and metrics.
Loss = Callable[[nnx.State, Batch, PRNGKeyArray, MicroBatchShare | None], tuple[Float32[Array, ""], Metrics]]


def split_batch(batch: Batch, number: int) -> Batch:
    """Split the rows of a batch into so many micro-batches (J), which become the leading axis of its arrays.

    Row r goes to micro-batch r % J, so that every device finds its share of every micro-batch among its own rows.
    """

    def split(rows: Shaped[Array, " B *any"]) -> Shaped[Array, "J _ *any"]:
        micro_batches = rows.reshape(-1, number, *rows.shape[1:]).swapaxes(0, 1)
        return shard(micro_batches, None, "batch", *(None for _ in rows.shape[1:]))

    return jax.tree.map(split, batch)


def micro_batch_shares(micro_batches: Batch, group_sizes: Mapping[str, int | None]) -> MicroBatchShare:
    """Return the weight of every micro-batch in its batch.

    Args:
      micro_batches: J micro-batches, stacked as `split_batch` returns them.
      group_sizes: by stack, tokens that are balanced on their own (N); None: those of a micro-batch, all together.

    Returns:
      The weights, arrays of shape [J].
    """
    real = {"encoder": micro_batches.src_segment > 0, "decoder": micro_batches.tgt_segment > 0}
    weights, means = micro_batch_weights(real, group_sizes)
    return MicroBatchShare(jnp.broadcast_to(means["decoder"], len(micro_batches.src)), weights)


def accumulated_gradients(
    loss: Loss,
    parameters: nnx.State,
    batch: Batch,
    key: PRNGKeyArray,
    number: int,
    group_sizes: Mapping[str, int | None],
) -> tuple[nnx.State, Metrics]:
    """Return gradients and metrics of a batch that is computed in micro-batches, one after the other.

    Every micro-batch counts by its share of the tokens, and of the groups of tokens, of the whole batch: so the sum
    over micro-batches is the loss of the batch, however its tokens are spread.

    Args:
      loss: the loss of some rows, divided by the number of micro-batches, and their metrics.
      parameters: those of the model.
      batch: the whole batch.
      key: random key; with more than one micro-batch, each has its own.
      number: the number of micro-batches, a divisor of the rows.
      group_sizes: see `micro_batch_shares`.
    """
    gradient = jax.grad(loss, has_aux=True)
    if number == 1:
        return gradient(parameters, batch, key, None)

    def add(sums: nnx.State, one: tuple[Array, Batch, MicroBatchShare]) -> tuple[nnx.State, Metrics]:
        index, rows, share = one
        gradients, metrics = gradient(parameters, rows, jax.random.fold_in(key, index), share)
        return map_variables(_plus, sums, gradients), metrics

    zeros = jax.tree.map(lambda weight: jnp.zeros_like(weight, jnp.float32), parameters)
    rows = split_batch(batch, number)
    sums, metrics = jax.lax.scan(add, zeros, (jnp.arange(number), rows, micro_batch_shares(rows, group_sizes)))
    return sums, combine_metrics(metrics)


def _plus(one: NamedArray, other: NamedArray) -> NamedArray:
    total: Array = one.get_value() + other.get_value()
    return one.replace(store(total, *logical_axes(one)))


def gradient_bytes(recipe: Recipe, weights: int) -> int:
    """Return the bytes of gradients beside so many bytes of weights.

    With `train.accumulate` there are those of a micro-batch, and their float32 sum.
    """
    if recipe.train.accumulate == 1:
        return weights
    return weights + weights * 4 // jnp.dtype(recipe.model.parameter_dtype).itemsize
