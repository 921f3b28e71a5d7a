"""The results of routing, and the steps that kinds of routing share: best experts, slots, gates."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PRNGKeyArray

from nmt.models.moe.ranks import ranks_within_experts
from nmt.sharding import left_to_xla

EPSILON = 1e-9  # keeps a sum of gates from being zero, as Lingvo does


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Routing:
    """The experts of each token."""

    expert: Int32[Array, "G N K"]
    gate: Float32[Array, "G N K"]  # zero where dropped
    slot: Int32[Array, "G N K"]  # rank within the expert, meaningful where kept
    kept: Bool[Array, "G N K"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExpertChoice:
    """The tokens of each expert."""

    token: Int32[Array, "G E C"]
    gate: Float32[Array, "G E C"]  # zero where not kept
    kept: Bool[Array, "G E C"]  # False where there was nothing but padding to take


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decision:
    """The result of a router: experts of tokens or tokens of experts, and what statistics and losses are made of."""

    moves: Routing | ExpertChoice
    first: Int32[Array, "G N"]  # the expert that a token likes best
    confidence: Float32[Array, "G N"]  # affinity of the token to that expert
    dropped: Bool[Array, "G N _"]  # choices that found no slot; of all K, or one entry where experts choose
    logits: Float32[Array, "G N E"] | None = None  # None: nothing is learnt
    probabilities: Float32[Array, "G N E"] | None = None  # affinities that sum to one
    # Choices that are to be balanced, E for none: all K, or the first alone; None: there is no such loss.
    counted: Int32[Array, "G N _"] | None = None
    assigned: Int32[Array, "G N K"] | None = None  # choices that move the biases, E for none; None: no biases
    bias: Float32[Array, " E"] | None = None  # the biases that were in force


def best_experts(
    probabilities: Float[Array, "*any E"], number: int, score: Float[Array, "*any E"] | None = None
) -> tuple[Int32[Array, "*any {number}"], Float[Array, "*any {number}"]]:
    """Return the best experts and their probabilities; ties go to the lower index.

    A choice past the number of experts is some expert, with no weight.

    Args:
      probabilities: those of all experts.
      number: K, the choices.
      score: the order in which experts are chosen, the greatest first; None: that of the probabilities.
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
    wanted: Bool[Array, "G N K"],
    expert: Int[Array, "G N K"],
    experts: int,
    slots: int | None,
    priority: Float[Array, "G N"] | None = None,
) -> tuple[Int32[Array, "G N K"], Bool[Array, "G N K"]]:
    """Give slots to wanted choices; return their ranks within experts, and which are kept.

    Args:
      wanted: the choices that are to have a slot.
      expert: the expert of each choice.
      experts: E.
      slots: C; None: as many as are wanted.
      priority: the tokens with the greatest are served first; None: in token order.
    """
    if slots is None or priority is None:
        slot = ranks_within_experts(wanted, expert, experts)
    else:

        def slots_by_priority(
            wanted: Bool[Array, "G N K"], expert: Int[Array, "G N K"], priority: Float[Array, "G N"]
        ) -> Int32[Array, "G N K"]:
            order = jnp.argsort(-priority, axis=1, stable=True)  # [G,N]
            first_wanted, first_expert = (jnp.take_along_axis(x, order[..., None], axis=1) for x in (wanted, expert))
            slot = ranks_within_experts(first_wanted, first_expert, experts)
            return jnp.take_along_axis(slot, jnp.argsort(order, axis=1)[..., None], axis=1)

        slot = left_to_xla(slots_by_priority, ("group", None, None))(wanted, expert, priority)
    return slot, wanted if slots is None else wanted & (slot < slots)


def normalised(weight: Float[Array, "*any K"]) -> Float[Array, "*any K"]:
    """Return weights divided by their sum over the choices of a token."""
    return weight / (weight.sum(axis=-1, keepdims=True) + EPSILON)


def compute_gates(weight: Float[Array, "G N K"], kept: Bool[Array, "G N K"], normalise: str) -> Float[Array, "G N K"]:
    """Return the gates of choices, zero where not kept.

    Args:
      weight: probabilities of the choices.
      kept: the choices that have a slot.
      normalise: `before`: probabilities are divided by their sum over all choices of a token; `after`: by that over
        the choices that are kept; `none`: they are taken as they are.
    """
    if normalise == "before":
        weight = normalised(weight)
    gate = jnp.where(kept, weight, 0.0)
    return normalised(gate) if normalise == "after" else gate


def sampled_choices(weight: Float[Array, "G N K"], threshold: float, key: PRNGKeyArray) -> Bool[Array, "G N K"]:
    """Return which choices are tried: the first always, others by their normalised gate."""
    uniform = jax.random.uniform(key, (*weight.shape[:-1], weight.shape[-1] - 1))
    later = uniform * threshold < jax.lax.stop_gradient(normalised(weight))[..., 1:]
    return jnp.concatenate([jnp.ones_like(weight[..., :1], bool), later], axis=-1)
