"""The statistics of a mixture-of-experts layer, and how those of micro-batches combine to those of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from nmt.models.moe.routing import Decision
from nmt.models.tokens import TokenInfo
from nmt.sharding import einsum, left_to_xla

# How a statistic of a batch follows from those of its micro-batches: as a mean weighted by their tokens, or by the
# groups (of `Router.balanced_over`) that hold a token; as a sum; or all have the same.
Combination = Literal["tokens", "groups", "sum", "same"]


def _combined_by(how: Combination) -> dict[str, Combination]:
    return {"combination": how}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RoutingStats:
    """The statistics of one mixture-of-experts layer, padding left out; or of several, with a leading axis over layers.

    Every number is finite, whatever the routing. The modules of the routers say where theirs mean something else.
    """

    # the load-balancing loss: 1 when balanced; 0 where there is none
    balance_loss: Float32[Array, ""] = field(metadata=_combined_by("groups"))
    # mean of log(sum_e exp logit_e)^2 over tokens
    z_loss: Float32[Array, ""] = field(metadata=_combined_by("tokens"))
    # distance of the gated share from its budget; 0 without shared=gated
    budget_loss: Float32[Array, ""] = field(metadata=_combined_by("tokens"))
    # share of first choices, or of all choices where biases go by them, before capacity; sums to 1
    load: Float32[Array, " E"] = field(metadata=_combined_by("tokens"))
    # share of tokens whose k-th choice was wanted and found no slot; one entry where experts choose
    dropped: Float32[Array, " K"] = field(metadata=_combined_by("tokens"))
    # mean router probability of the first choice
    confidence: Float32[Array, ""] = field(metadata=_combined_by("tokens"))
    # tokens of each direction whose first choice was each expert, before capacity
    by_direction: Float32[Array, "L E"] = field(metadata=_combined_by("sum"))
    # choices that fell on each expert, before capacity; None: no biases go by them
    assigned: Float32[Array, " E"] | None = field(default=None, metadata=_combined_by("sum"))
    # biases of the experts that were in force; None: there are none
    bias: Float32[Array, " E"] | None = field(default=None, metadata=_combined_by("same"))


def statistics(decision: Decision, info: TokenInfo, experts: int, balanced_groups: int | None = None) -> RoutingStats:
    """Return the statistics of a decision, with the router's z-loss (ST-MoE, equation 5) and load-balancing loss.

    Args:
      decision: the result of the router.
      info: the tokens, arrays of shape [G,N].
      experts: E.
      balanced_groups: the number of groups that the load-balancing loss is a mean over; None: G.
    """
    real = info.real
    one_hot = jax.nn.one_hot(decision.first, experts) * real[..., None]  # [G,N,E]
    tokens = jnp.maximum(real.sum(), 1)
    direction = jnp.zeros(real.shape, jnp.int32) if info.direction is None else info.direction
    assigned = _assigned(decision, experts)
    first_load = one_hot.sum(axis=(0, 1)) / tokens
    stats = RoutingStats(
        balance_loss=jnp.zeros(()),
        z_loss=jnp.zeros(()),
        budget_loss=jnp.zeros(()),
        load=first_load if assigned is None else assigned / jnp.maximum(assigned.sum(), 1),
        dropped=(decision.dropped & real[..., None]).sum(axis=(0, 1)) / tokens,
        confidence=(decision.confidence * real).sum() / tokens,
        by_direction=einsum("gnl,gne->le", jax.nn.one_hot(direction, info.directions), one_hot),
        assigned=assigned,
        bias=decision.bias,
    )
    if decision.logits is None:
        return stats
    logits, probabilities, counted = decision.logits, decision.probabilities, decision.counted
    groups = len(real) if balanced_groups is None else balanced_groups
    logits, real = _regrouped(logits, groups), _regrouped(real, groups)
    z = (jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real).sum() / jnp.maximum(real.sum(), 1)
    stats = replace(stats, z_loss=z)
    if counted is None or probabilities is None:
        return stats
    return replace(
        stats, balance_loss=balance_loss(_regrouped(probabilities, groups), _regrouped(counted, groups), real)
    )


def _regrouped(x: Shaped[Array, "G N *any"], groups: int) -> Shaped[Array, "{groups} _ *any"]:
    """Return an array of tokens in so many groups."""
    if groups == len(x):
        return x
    rest = x.shape[2:]
    return left_to_xla(lambda x: x.reshape(groups, -1, *rest), ("batch", *[None] * (1 + len(rest))))(x)


def _assigned(decision: Decision, experts: int) -> Float32[Array, " {experts}"] | None:
    """Return how many choices fell on each expert; None where no biases go by them."""
    if decision.assigned is None:
        return None
    return jax.nn.one_hot(decision.assigned, experts).sum(axis=(0, 1, 2))


def balance_loss(
    probabilities: Float[Array, "G N E"], counted: Int[Array, "G N _"], real: Bool[Array, "G N"]
) -> Float[Array, ""]:
    """Return the load-balancing loss E * sum_e f_e P_e of every group, mean over groups that hold a token.

    Args:
      probabilities: those of the router.
      counted: the choices whose shares are balanced, of all K or the first alone; E for none.
      real: False for padding.
    """
    experts, count = probabilities.shape[-1], real.sum(axis=1)  # count [G]
    chosen = jax.nn.one_hot(counted, experts).sum(axis=(1, 2))  # [G,E]
    share = chosen / jnp.maximum(chosen.sum(axis=-1, keepdims=True), 1)  # f [G,E]
    mean_probability = (probabilities * real[..., None]).sum(axis=1) / jnp.maximum(count, 1)[:, None]  # P [G,E]
    balance = experts * (share * mean_probability).sum(axis=-1)
    return balance.sum() / jnp.maximum((count > 0).sum(), 1)


class MicroBatchWeight(NamedTuple):
    """How much the means of a micro-batch count beside those of the others; 1 on average over the micro-batches."""

    tokens: Float32[Array, ""]  # of means over tokens
    groups: Float32[Array, ""]  # of means over groups that hold a token


def weighted(stats: RoutingStats, weight: MicroBatchWeight) -> RoutingStats:
    """Return the statistics of a micro-batch such that `combined` makes those of the batch of them."""
    factors = {"tokens": weight.tokens, "groups": weight.groups}
    return replace(
        stats,
        **{
            entry.name: getattr(stats, entry.name) * factors[entry.metadata["combination"]]
            for entry in fields(stats)
            if entry.metadata["combination"] in factors
        },
    )


def combined(stats: RoutingStats) -> RoutingStats:
    """Return the statistics of a batch from those of its micro-batches, `weighted` and stacked along a leading axis."""
    reductions = {"tokens": jnp.mean, "groups": jnp.mean, "sum": jnp.sum, "same": lambda leaf, axis: leaf[0]}
    return RoutingStats(
        **{
            entry.name: jax.tree.map(
                lambda leaf, reduce=reductions[entry.metadata["combination"]]: reduce(leaf, axis=0),
                getattr(stats, entry.name),
            )
            for entry in fields(stats)
        }
    )


def micro_batch_weights(
    real: Mapping[str, Bool[Array, "J B S"]], group_sizes: Mapping[str, int | None]
) -> tuple[dict[str, MicroBatchWeight], dict[str, Float32[Array, ""]]]:
    """Return the weights of the micro-batches of a batch.

    Args:
      real: by stack, False for padding.
      group_sizes: by stack, tokens that are balanced on their own (N); None: all of a micro-batch.

    Returns:
      By stack the weights, arrays of shape [J], and the mean number of real tokens of a micro-batch.
    """

    def count(tokens: Bool[Array, "J B S"], size: int | None) -> Int[Array, "J 2"]:
        tokens = tokens.reshape(len(tokens), -1)
        groups = tokens.reshape(len(tokens), -1, size or tokens.shape[1])
        return jnp.stack([tokens.sum(axis=1), groups.any(axis=2).sum(axis=1)], axis=1)

    weights, means = {}, {}
    for stack, tokens in real.items():
        counts = left_to_xla(partial(count, size=group_sizes.get(stack)), (None, None))(tokens)
        counts = counts.astype(jnp.float32)  # [J,2]
        mean = jnp.maximum(counts.mean(axis=0), 1 / len(counts))
        weights[stack] = MicroBatchWeight(*(counts / mean).T)
        means[stack] = mean[0]
    return weights, means
