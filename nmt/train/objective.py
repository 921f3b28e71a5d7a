"""The training objective: label-smoothed cross-entropy over target tokens, and the losses of the experts' routing."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, PRNGKeyArray

from nmt.data.batch import Batch
from nmt.models.moe.losses import auxiliary_loss
from nmt.models.moe.statistics import MicroBatchWeight, RoutingStats, combined, weighted
from nmt.models.tokens import PackedTokens, Phase
from nmt.models.transformer import Transformer
from nmt.sharding import einsum
from nmt.train.cross_entropy import OutputLoss, cross_entropy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Metrics:
    """Loss and counts of a batch. Those by direction are sums, so that those of several batches can be added."""

    loss: Float32[Array, ""]  # the value that is minimised: a mean over target tokens
    nll: Float32[Array, " L"]  # summed negative log-likelihood in nats, without smoothing
    tokens: Float32[Array, " L"]  # target tokens
    source_tokens: Float32[Array, ""]
    routing: dict[str, RoutingStats]  # by stack, with a leading axis over sparse layers; empty for a dense model


class MicroBatchShare(NamedTuple):
    """Weights of a micro-batch in its batch: with them the mean over micro-batches is that of the batch."""

    target_tokens: Float32[Array, ""]  # those of the batch over the number of micro-batches
    weights: dict[str, MicroBatchWeight]  # by stack


def combine_metrics(micro_batches: Metrics) -> Metrics:
    """Return the metrics of a batch from those of its micro-batches, stacked: sums, and means of weighted fields."""
    sums = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), replace(micro_batches, routing={}))
    routing = {stack: combined(stats) for stack, stats in micro_batches.routing.items()}
    return replace(sums, loss=jnp.mean(micro_batches.loss, axis=0), routing=routing)


def source_direction(batch: Batch) -> Int32[Array, "B S"]:
    """Return the direction of every source token, 0 where padded: that of its segment's target side."""
    # Compared and reduced in one pass, like an attention mask: no scatter, and nothing crosses rows.
    same = batch.src_segment[:, :, None] == batch.tgt_segment[:, None, :]
    return jnp.where(same, batch.direction[:, None, :], 0).max(axis=-1)


@dataclass(frozen=True)
class LossSetting:
    """The setting in which a loss is computed.

    Args:
      directions: number of directions of the recipe (L), for the metrics.
      phase: whether experts have a capacity, and which.
      output: label smoothing and z-loss of the output layer.
    """

    directions: int
    phase: Phase
    output: OutputLoss = field(default_factory=OutputLoss)


def objective(
    model: Transformer,
    batch: Batch,
    setting: LossSetting,
    key: PRNGKeyArray | None = None,
    share: MicroBatchShare | None = None,
) -> tuple[Float32[Array, ""], Metrics]:
    """Return the loss of a batch, per target token, and its metrics.

    Args:
      model: the model.
      batch: packed pairs.
      setting: the terms of the loss, and the phase.
      key: random key of dropout and routing; None turns both off.
      share: the weight of a micro-batch in its batch: loss and statistics are such that their mean over micro-batches
        is that of the batch; None: it is the whole batch.
    """
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    source = PackedTokens(batch.src, batch.src_segment, batch.src_position, source_direction(batch))
    target = PackedTokens(batch.tgt_in, batch.tgt_segment, batch.tgt_position, batch.direction)
    phase, directions = setting.phase, setting.directions
    memory, encoder_stats = model.encode(source, encoder_key, phase, directions)
    hidden, decoder_stats = model.decode(target, memory, batch.src_segment, decoder_key, phase, directions)
    real = (batch.tgt_segment > 0).astype(jnp.float32).reshape(-1)
    rows, wanted = model.output_rows(hidden), batch.tgt_out.reshape(-1)
    total, nll = cross_entropy(rows, model.output_table, wanted, real, setting.output, model.dtype)
    loss = total / (jnp.maximum(real.sum(), 1.0) if share is None else share.target_tokens)
    routing = {
        name: stats for name, stats in (("encoder", encoder_stats), ("decoder", decoder_stats)) if stats is not None
    }
    if share is not None:
        routing = {name: weighted(stats, share.weights[name]) for name, stats in routing.items()}
    if routing and model.config.moe is not None:
        loss = loss + auxiliary_loss(routing, model.config.moe)
    one_hot = jax.nn.one_hot(batch.direction.reshape(-1), directions) * real[:, None]
    return loss, Metrics(
        loss=loss,
        nll=einsum("r,rl->l", jax.lax.stop_gradient(nll), one_hot),
        tokens=one_hot.sum(axis=0),
        source_tokens=(batch.src_segment > 0).sum().astype(jnp.float32),
        routing=routing,
    )
