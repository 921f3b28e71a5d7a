"""Routing: which expert a token goes to, with which weight, into which slot (GShard, Algorithm 1).

Every convention of token choice is stated here and nowhere else; docs/moe.md has the sources. `hashing` and
`expert_choice` say in what they differ.

* The router and its softmax are float32. The capacity of an expert for one group of N tokens is
  C = min(N, max(min_capacity, ceil(factor * N / E))); GShard's C = 2N/E is a factor of 2. More than N slots are of no
  use, since the choices of a token are different experts.
* A token chooses its K most probable experts; of equal ones the lower index. An expert whose probability underflows to
  zero is not chosen, nor is one that does not exist (K = 2, E = 1).
* First choices take slots in token order, all of them before any second choice, also in token order, and so on.
  A choice past an expert's capacity is dropped: its gate is zero and the token passes by the residual alone.
  `batch_prioritised`: instead of token order, decreasing probability of the first choice, equal ones in token order; in
  a decoder this is of no effect, since any token could lose its slot to a later one. In token order a first choice
  cannot, but a second one can: the first choices of all tokens are served before it, those of later tokens too. So in
  training a decoder does learn a little from tokens to come, as GShard's does; inference drops nothing and cannot.
* Gates are probabilities, divided by their sum over all K choices (`before`: the paper, Lingvo, ST-MoE), by their sum
  over the choices that were kept (`after`: NLLB), or as they are (`none`: Switch).
* Choices after the first: `random` keeps choice k with probability min(1, g_k / threshold), independently, g_k its
  gate normalised over all K choices whatever `normalise` says; threshold 0.5 is the paper's `2 * g2 > rnd`. One that is
  not kept takes no slot (Lingvo; the printed algorithm advances the counter). Without a key all are kept.
* Padding takes no slot and has no part in a loss or a statistic.
* The load-balancing loss is E * sum_e f_e P_e per group, mean over groups that hold a token: f_e the share of tokens
  whose first choice is e, before capacity; P_e the mean router probability of e. It is 1 when balanced.
  (The paper's l_aux is this over E^2; Lingvo, MTF and Switch use this form.) `balance_choices=all`: f_e is e's share of
  all K choices instead, before sampling and capacity, so that it is 1 when balanced as well.
* With `slots=None` nothing is dropped. At inference there is no key either and all choices are kept, so that a token's
  result depends on the token alone.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import jax
import jax.numpy as jnp

from nmt.config import MoEConfig
from nmt.models.moe.counting import positions
from nmt.models.tokens import Phase
from nmt.sharding import einsum, left_to_xla

EPSILON = 1e-9  # keeps a sum of gates from being zero, as Lingvo does


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Routing:
    """Where each token of each group goes. G groups, N tokens in a group, K choices."""

    expert: jax.Array  # int32 [G,N,K]
    gate: jax.Array  # float32 [G,N,K], zero where dropped
    slot: jax.Array  # int32 [G,N,K], position among an expert's slots, meaningful where kept
    kept: jax.Array  # bool [G,N,K]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RoutingStats:
    """What is worth watching of one mixture-of-experts layer, padding aside.

    Every number is finite, whatever the routing; `hashing` and `expert_choice` say what theirs mean.
    """

    balance_loss: jax.Array  # float32 []
    z_loss: jax.Array  # float32 [], mean of log(sum_e exp logit_e)^2 over tokens
    budget_loss: jax.Array  # float32 [], distance of the gated share from its budget; 0 without shared=gated
    load: jax.Array  # float32 [E], share of first choices, before capacity; sums to 1
    dropped: jax.Array  # float32 [K], share of tokens whose k-th choice was wanted and found no slot
    confidence: jax.Array  # float32 [], mean router probability of the first choice
    by_direction: (
        jax.Array
    )  # float32 [D,E], tokens of each direction whose first choice was each expert, before capacity


def capacity(tokens: int, config: MoEConfig, factor: float | None = None) -> int:
    """Return C, the slots that an expert has for a group of so many tokens; factor None: that of training."""
    factor = config.capacity_factor if factor is None else factor
    return min(tokens, max(config.min_capacity, math.ceil(_exactly(factor) * tokens / config.experts)))


def _exactly(factor: float) -> Fraction:
    """Return a factor as it is written: 1.1 is 11/10, and 1.1 * 100 / 10 no more than 11."""
    return Fraction(str(factor))


def has_capacity(config: MoEConfig, phase: Phase) -> bool:
    """Return whether experts have a capacity in a phase; where they have none, nothing is dropped."""
    return phase is Phase.TRAIN or (phase is Phase.EVALUATE and config.eval_capacity_factor is not None)


def choices(config: MoEConfig, decoder: bool) -> int:
    """Return how many experts a token uses in inference, in the layers of the encoder or of the decoder."""
    routing = config.of_decoder if decoder else config.routing
    mean = math.floor(_exactly(config.capacity_factor) + Fraction(1, 2))
    wanted = max(1, mean) if routing == "expert_choice" else config.top_k
    return min(wanted, config.experts)


def of_type(x: jax.Array, config: MoEConfig) -> jax.Array:
    """Return x in float32, rounded to the router's type: a conversion there and back may be optimised away."""
    x = x.astype(jnp.float32)
    return jax.lax.reduce_precision(x, 8, 7) if config.router_dtype == "bfloat16" else x


def probabilities_of(logits: jax.Array, config: MoEConfig) -> jax.Array:
    """Return the router's probabilities [...,E] for its logits."""
    return of_type(jax.nn.softmax(logits, axis=-1), config)


def best_experts(probabilities: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Return the best experts, int32 [...,K], and their probabilities [...,K]; ties go to the lower index.

    A choice past the number of experts is some expert, with no weight.
    """
    experts = probabilities.shape[-1]
    index = jax.lax.broadcasted_iota(jnp.int32, probabilities.shape, probabilities.ndim - 1)
    rest = jax.lax.stop_gradient(probabilities)
    chosen, weight = [], []
    # Maxima and sums, unlike argmax, a sort or a gather and its derivative, are vector loops on every machine.
    for choice in range(number):
        top = rest.max(axis=-1, keepdims=True)
        expert = jnp.min(jnp.where(rest == top, index, experts - 1), axis=-1, keepdims=True)
        is_chosen = index == expert
        chosen.append(expert[..., 0])
        weight.append(jnp.where(is_chosen, probabilities, 0.0).sum(axis=-1) * (choice < experts))
        rest = jnp.where(is_chosen, -1.0, rest)
    return jnp.stack(chosen, axis=-1), jnp.stack(weight, axis=-1)


def fill(
    wanted: jax.Array, expert: jax.Array, experts: int, slots: int | None, priority: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Give slots to wanted choices; return the slot of each, int32 [G,N,K], and whether it is there, bool [G,N,K].

    Args:
      wanted: bool [G,N,K].
      expert: int32 [G,N,K].
      experts: E.
      slots: C; None: as many as are wanted.
      priority: [G,N], the tokens with the greatest are served first; None: in token order.
    """
    if slots is None or priority is None:
        slot = positions(wanted, expert, experts)
    else:

        def in_order(wanted: jax.Array, expert: jax.Array, priority: jax.Array) -> jax.Array:
            order = jnp.argsort(-priority, axis=1, stable=True)  # [G,N]
            first_wanted, first_expert = (jnp.take_along_axis(x, order[..., None], axis=1) for x in (wanted, expert))
            slot = positions(first_wanted, first_expert, experts)
            return jnp.take_along_axis(slot, jnp.argsort(order, axis=1)[..., None], axis=1)

        slot = left_to_xla(in_order, ("group", None, None))(wanted, expert, priority)
    return slot, wanted if slots is None else wanted & (slot < slots)


def _normalised(weight: jax.Array) -> jax.Array:
    return weight / (weight.sum(axis=-1, keepdims=True) + EPSILON)


def _gates(weight: jax.Array, kept: jax.Array, normalise: str) -> jax.Array:
    """Return gates [G,N,K] for the probabilities of the choices, zero where not kept."""
    if normalise == "before":
        weight = _normalised(weight)
    gate = jnp.where(kept, weight, 0.0)
    return _normalised(gate) if normalise == "after" else gate


def _sampled(weight: jax.Array, threshold: float, key: jax.Array) -> jax.Array:
    """Return which choices are tried, bool [G,N,K]: the first always, others by their normalised gate."""
    uniform = jax.random.uniform(key, (*weight.shape[:-1], weight.shape[-1] - 1))
    later = uniform * threshold < jax.lax.stop_gradient(_normalised(weight))[..., 1:]
    return jnp.concatenate([jnp.ones_like(weight[..., :1], bool), later], axis=-1)


def route(
    logits: jax.Array,
    real: jax.Array,
    config: MoEConfig,
    slots: int | None,
    key: jax.Array | None,
    direction: jax.Array | None = None,
    directions: int = 0,
    decoder: bool = False,
    together: bool = False,
) -> tuple[Routing, RoutingStats]:
    """Choose `top_k` experts for every token.

    Args:
      logits: float32 [G,N,E].
      real: bool [G,N], False for padding.
      config: the layer's configuration.
      slots: C; None at inference and for dispatch without slots: no token is dropped.
      key: random key for choices after the first; None keeps them all.
      direction: int32 [G,N], for statistics by direction; None: none.
      directions: D.
      decoder: whether the layer is a decoder's, where no token may have priority over an earlier one.
      together: the balance loss is that of all groups as one: they are there to spread work, not to balance it.
    """
    probabilities = probabilities_of(logits, config)
    expert, weight = best_experts(probabilities, config.top_k)
    wanted = real[..., None] & (weight > 0.0)
    if config.second_expert == "random" and config.top_k > 1 and key is not None:
        wanted = wanted & _sampled(weight, config.second_threshold, key)
    priority = weight[..., 0] if config.batch_prioritised and not decoder else None
    slot, kept = fill(wanted, expert, logits.shape[-1], slots, priority)
    routing = Routing(expert=expert, gate=_gates(weight, kept, config.normalise), slot=slot, kept=kept)
    stats = statistics(expert[..., 0], weight[..., 0], wanted & ~kept, real, logits.shape[-1], direction, directions)
    number = config.top_k if config.balance_choices == "all" else 1
    counted = jnp.where(real[..., None] & (weight > 0.0), expert, logits.shape[-1])[..., :number]
    if together:
        logits, probabilities, counted = (x.reshape(1, -1, x.shape[-1]) for x in (logits, probabilities, counted))
        real = real.reshape(1, -1)
    return routing, with_losses(stats, logits, probabilities, counted, real)


def statistics(
    first: jax.Array,
    confidence: jax.Array,
    dropped: jax.Array,
    real: jax.Array,
    experts: int,
    direction: jax.Array | None,
    directions: int,
) -> RoutingStats:
    """Return the statistics of a layer without losses.

    Args:
      first: int32 [G,N], the first choice of each token.
      confidence: float32 [G,N], its weight.
      dropped: bool [G,N,K], choices that found no slot.
      real: bool [G,N].
      experts: E.
      direction: int32 [G,N], or None.
      directions: D.
    """
    one_hot = jax.nn.one_hot(first, experts) * real[..., None]  # [G,N,E]
    tokens = jnp.maximum(real.sum(), 1)
    of = jnp.zeros(real.shape, jnp.int32) if direction is None else direction
    return RoutingStats(
        balance_loss=jnp.zeros(()),
        z_loss=jnp.zeros(()),
        budget_loss=jnp.zeros(()),
        load=one_hot.sum(axis=(0, 1)) / tokens,
        dropped=(dropped & real[..., None]).sum(axis=(0, 1)) / tokens,
        confidence=(confidence * real).sum() / tokens,
        by_direction=einsum("gnd,gne->de", jax.nn.one_hot(of, directions), one_hot),
    )


def with_losses(
    stats: RoutingStats, logits: jax.Array, probabilities: jax.Array, counted: jax.Array | None, real: jax.Array
) -> RoutingStats:
    """Return statistics with the router's z-loss (ST-MoE, equation 5) and, given choices, the balance loss.

    Args:
      stats: the statistics.
      logits: float32 [G,N,E].
      probabilities: float32 [G,N,E].
      counted: int32 [G,N,K], the choices whose shares are balanced, E for none; None: there is no balance loss.
      real: bool [G,N].
    """
    z = (jnp.square(jax.nn.logsumexp(logits, axis=-1)) * real).sum() / jnp.maximum(real.sum(), 1)
    if counted is None:
        return replace(stats, z_loss=z)
    experts, count = logits.shape[-1], real.sum(axis=1)  # count [G]
    of_expert = jax.nn.one_hot(counted, experts).sum(axis=(1, 2))  # [G,E]
    share = of_expert / jnp.maximum(of_expert.sum(axis=-1, keepdims=True), 1)  # f [G,E]
    mean_probability = (probabilities * real[..., None]).sum(axis=1) / jnp.maximum(count, 1)[:, None]  # P [G,E]
    balance = experts * (share * mean_probability).sum(axis=-1)
    return replace(stats, z_loss=z, balance_loss=balance.sum() / jnp.maximum((count > 0).sum(), 1))
