"""The results of routing, and the steps that kinds of routing share: best experts, slots, gates.

Letters: G groups, N tokens in a group, E experts, K choices of a token, C slots of an expert for a group.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from nmt.models.moe.counting import positions
from nmt.sharding import left_to_xla

EPSILON = 1e-9  # keeps a sum of gates from being zero, as Lingvo does


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Routing:
    """The experts of each token."""

    expert: jax.Array  # int32 [G,N,K]
    gate: jax.Array  # float32 [G,N,K], zero where dropped
    slot: jax.Array  # int32 [G,N,K], rank within the expert, meaningful where kept
    kept: jax.Array  # bool [G,N,K]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExpertChoice:
    """The tokens of each expert."""

    token: jax.Array  # int32 [G,E,C]
    gate: jax.Array  # float32 [G,E,C], zero where not kept
    kept: jax.Array  # bool [G,E,C], False where there was nothing but padding to take


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decision:
    """The result of a router: who goes where, and the numbers that statistics and losses are made of."""

    moves: Routing | ExpertChoice
    first: jax.Array  # int32 [G,N], the expert that a token likes best
    confidence: jax.Array  # float32 [G,N], affinity of the token to that expert
    dropped: jax.Array  # bool [G,N,K'], choices that found no slot; K' = 1 where experts choose
    logits: jax.Array | None = None  # float32 [G,N,E]; None: nothing is learnt
    probabilities: jax.Array | None = None  # float32 [G,N,E], affinities that sum to one
    counted: jax.Array | None = None  # int32 [G,N,K''], choices that are to be balanced, E for none; None: no loss
    assigned: jax.Array | None = None  # int32 [G,N,K], choices that move the biases, E for none; None: no biases
    bias: jax.Array | None = None  # float32 [E], the biases that were in force


def best_experts(probabilities: jax.Array, number: int, score: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Return the best experts, int32 [...,K], and their probabilities [...,K]; ties go to the lower index.

    A choice past the number of experts is some expert, with no weight.

    Args:
      probabilities: float32 [...,E].
      number: K.
      score: float32 [...,E], the order in which experts are chosen; None: that of the probabilities.
    """
    experts = probabilities.shape[-1]
    index = jax.lax.broadcasted_iota(jnp.int32, probabilities.shape, probabilities.ndim - 1)
    rest = jax.lax.stop_gradient(probabilities if score is None else score)
    chosen, weight = [], []
    # Maxima and sums, unlike argmax, a sort or a gather and its derivative, are vector loops on every machine.
    for choice in range(number):
        top = rest.max(axis=-1, keepdims=True)
        expert = jnp.min(jnp.where(rest == top, index, experts - 1), axis=-1, keepdims=True)
        is_chosen = index == expert
        chosen.append(expert[..., 0])
        weight.append(jnp.where(is_chosen, probabilities, 0.0).sum(axis=-1) * (choice < experts))
        rest = jnp.where(is_chosen, -jnp.inf, rest)
    return jnp.stack(chosen, axis=-1), jnp.stack(weight, axis=-1)


def fill(
    wanted: jax.Array, expert: jax.Array, experts: int, slots: int | None, priority: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Give slots to wanted choices; return their ranks within experts, int32 [G,N,K], and which are kept, bool [G,N,K].

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

        def slots_by_priority(wanted: jax.Array, expert: jax.Array, priority: jax.Array) -> jax.Array:
            order = jnp.argsort(-priority, axis=1, stable=True)  # [G,N]
            first_wanted, first_expert = (jnp.take_along_axis(x, order[..., None], axis=1) for x in (wanted, expert))
            slot = positions(first_wanted, first_expert, experts)
            return jnp.take_along_axis(slot, jnp.argsort(order, axis=1)[..., None], axis=1)

        slot = left_to_xla(slots_by_priority, ("group", None, None))(wanted, expert, priority)
    return slot, wanted if slots is None else wanted & (slot < slots)


def normalised(weight: jax.Array) -> jax.Array:
    """Return weights [...,K] divided by their sum over K."""
    return weight / (weight.sum(axis=-1, keepdims=True) + EPSILON)


def gates_of_choices(weight: jax.Array, kept: jax.Array, normalise: str) -> jax.Array:
    """Return gates [G,N,K] for the probabilities of the choices, zero where not kept."""
    if normalise == "before":
        weight = normalised(weight)
    gate = jnp.where(kept, weight, 0.0)
    return normalised(gate) if normalise == "after" else gate


def sampled_choices(weight: jax.Array, threshold: float, key: jax.Array) -> jax.Array:
    """Return which choices are tried, bool [G,N,K]: the first always, others by their normalised gate."""
    uniform = jax.random.uniform(key, (*weight.shape[:-1], weight.shape[-1] - 1))
    later = uniform * threshold < jax.lax.stop_gradient(normalised(weight))[..., 1:]
    return jnp.concatenate([jnp.ones_like(weight[..., :1], bool), later], axis=-1)
