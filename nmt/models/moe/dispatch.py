"""Dispatch: how tokens reach their experts and come back. Three ways, one result.

* `einsum`: GShard's one-hot products (section 3.1); costs N x E x C x M, the reference.
* `scatter`: rows are gathered by index into [E,C] slots and back; nothing is multiplied that need not be.
* `blocked`: for inference, where nothing may be dropped: tokens sorted by expert, in blocks of one expert each, so that
  the work grows with the tokens and not with the number of experts.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nmt.models.moe.routing import Routing
from nmt.sharding import shard

Experts = Callable[[jax.Array], jax.Array]


def einsum_dispatch(x: jax.Array, routing: Routing, experts: int, slots: int, apply: Experts) -> jax.Array:
    """Move tokens by products with one-hot masks.

    Args:
      x: tokens [`G,N,M].
      routing: where they go.
      experts: E.
      slots: C.
      apply: the experts, [E,R,M] -> [E,R,M] for R = G*C rows.

    Returns:
      [`G,N,M]: the gated sum of the experts' outputs, zero for tokens that no expert took.
    """
    one_hot_expert = jax.nn.one_hot(routing.expert, experts) * routing.kept[..., None]  # [G,N,K,E]
    one_hot_slot = jax.nn.one_hot(routing.slot, slots)  # [G,N,K,C]
    send = jnp.einsum("gnke,gnkc->gnec", one_hot_expert, one_hot_slot)
    combine = jnp.einsum("gnk,gnke,gnkc->gnec", routing.gate, one_hot_expert, one_hot_slot)
    inputs = jnp.einsum("gnec,gnm->egcm", send, x)
    return jnp.einsum("gnec,egcm->gnm", combine, _run(inputs, apply))


def _run(inputs: jax.Array, apply: Experts) -> jax.Array:
    """Apply the experts to [E,G,C,M]: from groups to experts and back, an all-to-all each way."""
    experts, groups, slots, width = inputs.shape
    inputs = shard(shard(inputs, None, "group", None, None), "expert", "expert_group", None, None)
    outputs = apply(inputs.reshape(experts, groups * slots, width)).reshape(inputs.shape)
    return shard(shard(outputs, "expert", "expert_group", None, None), None, "group", None, None)


def scatter_dispatch(x: jax.Array, routing: Routing, experts: int, slots: int, apply: Experts) -> jax.Array:
    """Move tokens by index; arguments and result as for `einsum_dispatch`."""
    groups, _, width = x.shape
    nowhere = experts * slots
    place = jnp.where(routing.kept, routing.expert * slots + routing.slot, nowhere)  # [G,N,K]
    occupant = jax.vmap(lambda p: _invert(p, nowhere))(place)  # [G,E*C] -> token, N where empty
    inputs = jax.vmap(_send)(x, occupant, place, routing.kept).reshape(groups, experts, slots, width)
    outputs = _run(inputs.swapaxes(0, 1), apply).swapaxes(0, 1)
    return jax.vmap(_collect)(outputs.reshape(groups, nowhere, width), routing.gate, occupant, place)


def _invert(place: jax.Array, places: int) -> jax.Array:
    """Return, for each of so many places, the token [places] whose choice [N,K] fills it; N where none does."""
    tokens, choices = place.shape
    owner = jnp.repeat(jnp.arange(tokens, dtype=jnp.int32), choices)
    return jnp.full((places,), tokens, jnp.int32).at[place.reshape(-1)].set(owner, mode="drop", unique_indices=False)


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Gather rows; an index past the end gives some row, which no result may depend on."""
    return jnp.take(rows, index, axis=0, mode="clip")


def _weighted(rows: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """Return, for each token, the sum of its K rows [R,M] at index [N,K] by weight [N,K]: [N,M]."""
    # A sum over an axis of two would be a pass of its own; written out it is part of the gather.
    parts = [_take(rows, index[:, k]) * weight[:, k, None] for k in range(index.shape[1])]
    return functools.reduce(jnp.add, parts)


# The derivative of a gather is a scatter-add, which is slow on every accelerator. Both directions of the map between
# tokens and slots are known here, so both derivatives can be gathers too. Slots that are empty hold some token's row:
# what experts make of it meets no gate, and so the gradient that comes back there is zero.


@jax.custom_vjp
def _send(x: jax.Array, occupant: jax.Array, place: jax.Array, kept: jax.Array) -> jax.Array:
    """Gather tokens [N,M] into slots [E*C,M]."""
    return _take(x, occupant)


def _send_forward(
    x: jax.Array, occupant: jax.Array, place: jax.Array, kept: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _take(x, occupant), (occupant, place, kept)


def _send_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, *tuple[np.ndarray, ...]]:
    occupant, place, kept = saved
    of_x = _weighted(gradient, place, kept.astype(gradient.dtype))
    return of_x, *(_no_gradient(index) for index in (occupant, place, kept))


_send.defvjp(_send_forward, _send_backward)


@jax.custom_vjp
def _collect(rows: jax.Array, gate: jax.Array, occupant: jax.Array, place: jax.Array) -> jax.Array:
    """Gather slots [E*C,M] back to tokens [N,M], weighted by gates [N,K]."""
    return _weighted(rows, place, gate)


def _collect_forward(
    rows: jax.Array, gate: jax.Array, occupant: jax.Array, place: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _weighted(rows, place, gate), (rows, gate, occupant, place)


def _collect_backward(saved: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, *tuple[Any, ...]]:
    rows, gate, occupant, place = saved
    gate_of_place = jnp.zeros((rows.shape[0],), gate.dtype).at[place.reshape(-1)].set(gate.reshape(-1), mode="drop")
    of_rows = _take(gradient, occupant) * gate_of_place[:, None]
    of_gate = jnp.stack([(_take(rows, place[:, k]) * gradient).sum(axis=-1) for k in range(gate.shape[1])], axis=-1)
    return of_rows, of_gate, _no_gradient(occupant), _no_gradient(place)


_collect.defvjp(_collect_forward, _collect_backward)


def _no_gradient(x: jax.Array) -> np.ndarray:
    return np.zeros(x.shape, jax.dtypes.float0)


def block_rows(choices: int, experts: int) -> int:
    """Return the rows of a block: near the mean rows of an expert, so that padding stays below the work itself."""
    return max(8, min(128, int(2 ** round(math.log2(max(1.0, choices / experts))))))


def blocked_dispatch(
    x: jax.Array, routing: Routing, experts: int, apply_one: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Move tokens without ever dropping one, for inference.

    The choices of all tokens are sorted by expert and laid out so that every block of rows belongs to one expert; each
    expert wastes less than one block. A scan over blocks runs each through its expert.

    Args:
      x: tokens [G,N,M].
      routing: where they go, made with `slots=None`.
      experts: E.
      apply_one: (expert index [], rows [R,M]) -> [R,M].

    Returns:
      [G,N,M].
    """
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    kept = routing.kept.reshape(-1)
    expert = jnp.where(kept, routing.expert.reshape(-1), experts)
    choices = expert.shape[0]
    block = block_rows(choices, experts)
    blocks = choices // block + experts

    count = jnp.bincount(expert, length=experts + 1)[:experts]
    blocks_before = jnp.cumsum(-(-count // block)) - -(-count // block)  # [E]
    rows_before = jnp.cumsum(count) - count
    order = jnp.argsort(expert, stable=True)
    sorted_expert = jnp.minimum(expert[order], experts - 1)
    rank = jnp.arange(choices) - rows_before[sorted_expert]
    place_sorted = jnp.where(kept[order], blocks_before[sorted_expert] * block + rank, blocks * block)
    place = jnp.zeros((choices,), jnp.int32).at[order].set(place_sorted.astype(jnp.int32))

    occupant = _invert(place.reshape(-1, routing.kept.shape[-1]), blocks * block)
    owner = jnp.searchsorted(blocks_before, jnp.arange(blocks), side="right") - 1

    def run(_: None, step: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        index, members = step
        return None, apply_one(index, _take(rows, members))

    _, outputs = jax.lax.scan(run, None, (owner, occupant.reshape(blocks, block)))
    choices_of_token = routing.kept.shape[-1]
    gate = routing.gate.reshape(-1, choices_of_token)
    return _weighted(outputs.reshape(-1, width), place.reshape(gate.shape), gate).reshape(x.shape)
