"""The training objective: label-smoothed cross-entropy over target tokens, and the load-balancing loss of experts."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nmt.data.batch import Batch
from nmt.models.moe.routing import RoutingStats
from nmt.models.numerics import contract_rows
from nmt.models.tokens import Phase
from nmt.models.transformer import Transformer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Metrics:
    """What a batch says of the model. Sums, so that those of several batches can be added; D directions."""

    loss: jax.Array  # float32 [], what is minimised
    nll: jax.Array  # float32 [D], summed negative log-likelihood in nats, without smoothing
    tokens: jax.Array  # float32 [D], target tokens
    source_tokens: jax.Array  # float32 []
    routing: dict[str, RoutingStats]  # by stack, with a leading axis over sparse layers; empty for a dense model


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden: jax.Array, table: jax.Array, target: jax.Array, weight: jax.Array, smoothing: float, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
    """Return summed smoothed cross-entropy [] and the negative log-likelihood of each target [R].

    The derivative is written out: softmax minus smoothed target, in one pass over the logits; automatic
    differentiation takes several, and on a CPU these passes are bound by memory.

    Args:
      hidden: float32 [R,M].
      table: output embedding, float32 [V,M].
      target: int32 [R].
      weight: float32 [R], 0 for padding.
      smoothing: share of the target distribution that is uniform over V.
      dtype: input type of the products.
    """
    return _cross_entropy_forward(hidden, table, target, weight, smoothing, dtype)[0]


def _cross_entropy_forward(
    hidden: jax.Array, table: jax.Array, target: jax.Array, weight: jax.Array, smoothing: float, dtype: jnp.dtype
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    hidden, table = hidden.astype(dtype), table.astype(dtype)
    logits = jnp.einsum("rm,vm->rv", hidden, table, preferred_element_type=jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    nll = normaliser - jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    uniform = normaliser - logits.mean(axis=-1)
    total = (weight * ((1 - smoothing) * nll + smoothing * uniform)).sum()
    return (total, nll), (hidden, table, target, weight, logits, normaliser)


def _cross_entropy_backward(
    smoothing: float, dtype: jnp.dtype, saved: tuple[jax.Array, ...], gradient: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, np.ndarray, None]:
    hidden, table, target, weight, logits, normaliser = saved
    scale = (weight * gradient[0])[:, None]
    vocabulary = logits.shape[-1]
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == target[:, None]
    wanted = jnp.where(is_target, 1 - smoothing, 0.0) + smoothing / vocabulary
    of_logits = (scale * (jnp.exp(logits - normaliser[:, None]) - wanted)).astype(dtype)
    of_hidden = jnp.einsum("rv,vm->rm", of_logits, table, preferred_element_type=jnp.float32)
    of_table = contract_rows("rv", of_logits, "rm", hidden, "vm")
    return of_hidden, of_table, np.zeros(target.shape, jax.dtypes.float0), None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def source_direction(batch: Batch) -> jax.Array:
    """Return the direction of every source token, int32 [B,S], 0 where padded: that of its segment's target side."""
    # Compared and reduced in one pass, like an attention mask: no scatter, and nothing crosses rows.
    same = batch.src_segment[:, :, None] == batch.tgt_segment[:, None, :]
    return jnp.where(same, batch.direction[:, None, :], 0).max(axis=-1)


def objective(
    model: Transformer, batch: Batch, directions: int, smoothing: float, key: jax.Array | None, phase: Phase
) -> tuple[jax.Array, Metrics]:
    """Return the loss of a batch, per target token, and what there is to report.

    Args:
      model: the model.
      batch: packed pairs.
      directions: number of directions of the recipe.
      smoothing: label smoothing.
      key: random key of dropout and routing; None turns both off.
      phase: whether experts have a capacity.
    """
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    memory, encoder_stats = model.encode(
        batch.src, batch.src_segment, batch.src_position, encoder_key, phase, source_direction(batch), directions
    )
    hidden, decoder_stats = model.decode(
        batch.tgt_in,
        batch.tgt_segment,
        batch.tgt_position,
        memory,
        batch.src_segment,
        decoder_key,
        phase,
        batch.direction,
        directions,
    )
    real = (batch.tgt_segment > 0).astype(jnp.float32).reshape(-1)
    total, nll = cross_entropy(
        hidden.reshape(-1, hidden.shape[-1]),
        model.embedding[...],
        batch.tgt_out.reshape(-1),
        real,
        smoothing,
        model.dtype,
    )
    loss = total / jnp.maximum(real.sum(), 1.0)
    routing = {
        name: stats for name, stats in (("encoder", encoder_stats), ("decoder", decoder_stats)) if stats is not None
    }
    if routing and model.config.moe is not None:
        balance = jnp.concatenate([stats.balance_loss for stats in routing.values()])
        loss = loss + model.config.moe.balance_weight * balance.mean()
    one_hot = jax.nn.one_hot(batch.direction.reshape(-1), directions) * real[:, None]
    return loss, Metrics(
        loss=loss,
        nll=jax.lax.stop_gradient(nll) @ one_hot,
        tokens=one_hot.sum(axis=0),
        source_tokens=(batch.src_segment > 0).sum().astype(jnp.float32),
        routing=routing,
    )
