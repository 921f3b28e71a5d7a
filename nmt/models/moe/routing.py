"""Routing: which expert a token goes to, with which weight, into which slot (GShard, Algorithm 1).

Every convention is stated here and nowhere else:

* The router and its softmax are float32. The capacity of an expert for one group of N tokens is
  C = max(min_capacity, ceil(capacity_factor * N / E)); GShard's C = 2N/E is capacity_factor 2.
* First choices take slots in token order, all of them before any second choice, also in token order.
  A choice past an expert's capacity is dropped: its gate is zero and the token passes by the residual alone.
* Gates are normalised over the two choices, g_i / (g1 + g2), before anything is dropped (the paper, and Lingvo).
* Second choices: `random` keeps one with probability min(1, g2 / threshold) of its normalised gate; threshold 0.5 is
  the paper's `2 * g2 > rnd`. One that is not kept takes no slot (Lingvo; the printed algorithm advances the counter).
* Padding takes no slot and has no part in a loss or a statistic.
* The load-balancing loss is E * sum_e f_e P_e per group, mean over groups that hold a token: f_e the share of tokens
  whose first choice is e, before capacity; P_e the mean router probability of e. It is 1 when balanced.
  (The paper's l_aux is this over E^2; Lingvo, MTF and Switch use this form.)
* With `slots=None` nothing is dropped. At inference there is no key either and all second choices are kept, so that a
  token's result depends on the token alone.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from nmt.config import MoEConfig
from nmt.models.moe.counting import positions

EPSILON = 1e-9  # keeps g1 + g2 from being zero, as Lingvo does


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Routing:
    """Where each token of each group goes. G groups, N tokens in a group, K = 2 choices."""

    expert: jax.Array  # int32 [G,N,K]
    gate: jax.Array  # float32 [G,N,K], zero where dropped
    slot: jax.Array  # int32 [G,N,K], position among an expert's slots, meaningful where kept
    kept: jax.Array  # bool [G,N,K]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RoutingStats:
    """What is worth watching of one mixture-of-experts layer, padding aside."""

    balance_loss: jax.Array  # float32 []
    z_loss: jax.Array  # float32 [], mean of log(sum_e exp logit_e)^2 over tokens
    budget_loss: jax.Array  # float32 [], distance of the gated share from its budget; 0 without shared=gated
    load: jax.Array  # float32 [E], share of first choices, before capacity; sums to 1
    dropped: jax.Array  # float32 [K], share of tokens whose k-th choice was wanted and found no slot
    confidence: jax.Array  # float32 [], mean router probability of the first choice
    by_direction: (
        jax.Array
    )  # float32 [D,E], tokens of each direction whose first choice was each expert, before capacity


def capacity(tokens: int, config: MoEConfig) -> int:
    """Return C, the slots that an expert has for a group of so many tokens in training."""
    return max(config.min_capacity, math.ceil(config.capacity_factor * tokens / config.experts))


def _top_two(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the two best experts [G,N,2] and their probabilities [G,N,2]; ties go to the lower index."""
    experts = probabilities.shape[-1]
    first = jnp.argmax(probabilities, axis=-1)
    # With a single expert the second choice is that expert again, with no weight.
    rest = jnp.where(jax.nn.one_hot(first, experts, dtype=bool), -1.0, probabilities)
    second = jnp.argmax(rest, axis=-1)
    best = jnp.stack([first, second], axis=-1).astype(jnp.int32)
    weight = jnp.take_along_axis(probabilities, best, axis=-1)
    return best, weight * jnp.array([1.0, 0.0 if experts == 1 else 1.0])


def route(
    logits: jax.Array,
    real: jax.Array,
    config: MoEConfig,
    slots: int | None,
    key: jax.Array | None,
    direction: jax.Array | None = None,
    directions: int = 0,
) -> tuple[Routing, RoutingStats]:
    """Choose two experts for every token.

    Args:
      logits: float32 [G,N,E].
      real: bool [G,N], False for padding.
      config: the layer's configuration.
      slots: C; None at inference and for dispatch without slots: no token is dropped.
      key: random key for second choices; None keeps them all.
      direction: int32 [G,N], for statistics by direction; None: none.
      directions: D.
    """
    experts = logits.shape[-1]
    probabilities = jax.nn.softmax(logits, axis=-1)
    expert, weight = _top_two(probabilities)
    gate = weight / (weight.sum(axis=-1, keepdims=True) + EPSILON)
    wanted = real[..., None] & (weight > 0.0)
    if config.second_expert == "random" and key is not None:
        sampled = jax.random.uniform(key, real.shape) * config.second_threshold < gate[..., 1]
        wanted = wanted & jnp.stack([jnp.ones_like(sampled), sampled], axis=-1)
    slot = positions(wanted, expert, experts)
    kept = wanted if slots is None else wanted & (slot < slots)
    routing = Routing(expert=expert, gate=jnp.where(kept, gate, 0.0), slot=slot, kept=kept)
    return routing, _statistics(logits, probabilities, routing, wanted, real, direction, directions)


def _statistics(
    logits: jax.Array,
    probabilities: jax.Array,
    routing: Routing,
    wanted: jax.Array,
    real: jax.Array,
    direction: jax.Array | None,
    directions: int,
) -> RoutingStats:
    experts = probabilities.shape[-1]
    count = real.sum(axis=1)  # [G]
    denominator = jnp.maximum(count, 1)[:, None]
    first = jax.nn.one_hot(routing.expert[..., 0], experts) * real[..., None]
    share = first.sum(axis=1) / denominator  # f [G,E]
    mean_probability = (probabilities * real[..., None]).sum(axis=1) / denominator  # P [G,E]
    balance = experts * (share * mean_probability).sum(axis=-1)
    tokens = jnp.maximum(count.sum(), 1)
    log_sum = jax.nn.logsumexp(logits, axis=-1)
    best = jnp.take_along_axis(probabilities, routing.expert[..., :1], axis=-1)[..., 0]
    of = jnp.zeros(real.shape, jnp.int32) if direction is None else direction
    return RoutingStats(
        balance_loss=balance.sum() / jnp.maximum((count > 0).sum(), 1),
        z_loss=(jnp.square(log_sum) * real).sum() / tokens,
        budget_loss=jnp.zeros(()),
        load=first.sum(axis=(0, 1)) / tokens,
        dropped=(wanted & ~routing.kept).sum(axis=(0, 1)) / tokens,
        confidence=(best * real).sum() / tokens,
        by_direction=jnp.einsum("gnd,gne->de", jax.nn.one_hot(of, directions), first),
    )
