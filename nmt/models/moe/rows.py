"""Rows of tokens gathered to places, and weighted back: both ways of the map are known, so both derivatives gather too.

The derivative of a gather is a scatter-add, which is slow on every accelerator; here it is another gather. Places that
are empty hold some token's row: no gate takes what the experts make of it, so the gradient that comes back there is
zero.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Num


def invert(place: Int[Array, "N K"], places: int) -> Int32[Array, " {places}"]:
    """Return, for each of so many places, the token whose choice fills it; N where none does."""
    tokens, choices = place.shape
    owner = jnp.repeat(jnp.arange(tokens, dtype=jnp.int32), choices)
    return jnp.full((places,), tokens, jnp.int32).at[place.reshape(-1)].set(owner, mode="drop", unique_indices=False)


def take(rows: Num[Array, "R M"], index: Int[Array, " P"]) -> Num[Array, "P M"]:
    """Gather rows; an index past the end gives some row, which no result may depend on."""
    return jnp.take(rows, index, axis=0, mode="clip")


def weighted_sum(rows: Sequence[Float[Array, "*any M"]], weight: Float[Array, "*any K"]) -> Float[Array, "*any M"]:
    """Return the sum of K arrays of rows of one type, each row times its weight, in that type; summed in float32."""
    # A sum over an axis of two would be a pass of its own; written out it is part of the gather.
    parts = [row.astype(jnp.float32) * weight[..., k, None] for k, row in enumerate(rows)]
    return functools.reduce(jnp.add, parts).astype(rows[0].dtype)


def _weighted(rows: Float[Array, "R M"], index: Int[Array, "N K"], weight: Float[Array, "N K"]) -> Float[Array, "N M"]:
    """Return, for each token, the sum of its K rows, each times its weight."""
    return weighted_sum([take(rows, index[:, k]) for k in range(index.shape[1])], weight)


@jax.custom_vjp
def send(x: Float[Array, "N M"], occupant: Int[Array, " P"], place: Int[Array, "N K"]) -> Float[Array, "P M"]:
    """Gather tokens to places.

    Args:
      x: tokens, of any type; the result has it too.
      occupant: the token of each place, N where it is empty.
      place: the place of each choice, P where it has none.
    """
    return take(x, occupant)


def _send_forward(
    x: Float[Array, "N M"], occupant: Int[Array, " P"], place: Int[Array, "N K"]
) -> tuple[Float[Array, "P M"], tuple[Int[Array, " P"], Int[Array, "N K"]]]:
    return take(x, occupant), (occupant, place)


def _send_backward(
    saved: tuple[Int[Array, " P"], Int[Array, "N K"]], gradient: Float[Array, "P M"]
) -> tuple[Float[Array, "N M"], np.ndarray, np.ndarray]:
    occupant, place = saved
    x_cotangent = _weighted(gradient, place, (place < occupant.shape[0]).astype(jnp.float32))
    return x_cotangent, no_gradient(occupant), no_gradient(place)


send.defvjp(_send_forward, _send_backward)


@jax.custom_vjp
def collect(
    rows: Float[Array, "P M"], gate: Float[Array, "N K"], occupant: Int[Array, " P"], place: Int[Array, "N K"]
) -> Float[Array, "N M"]:
    """Gather rows back to tokens, weighted by the gates of choices; `occupant` and `place` as for `send`."""
    return _weighted(rows, place, gate)


# Saved for the derivative: rows, gates, occupants, places.
Collected = tuple[Float[Array, "P M"], Float[Array, "N K"], Int[Array, " P"], Int[Array, "N K"]]


def _collect_forward(
    rows: Float[Array, "P M"], gate: Float[Array, "N K"], occupant: Int[Array, " P"], place: Int[Array, "N K"]
) -> tuple[Float[Array, "N M"], Collected]:
    return _weighted(rows, place, gate), (rows, gate, occupant, place)


def _collect_backward(
    saved: Collected, gradient: Float[Array, "N M"]
) -> tuple[Float[Array, "P M"], Float[Array, "N K"], np.ndarray, np.ndarray]:
    rows, gate, occupant, place = saved
    gate_of_place = jnp.zeros((rows.shape[0],), gate.dtype).at[place.reshape(-1)].set(gate.reshape(-1), mode="drop")
    rows_cotangent = (take(gradient, occupant) * gate_of_place[:, None]).astype(rows.dtype)
    gradient = gradient.astype(gate.dtype)
    gate_cotangent = jnp.stack(
        [(take(rows, place[:, k]) * gradient).sum(axis=-1) for k in range(gate.shape[1])], axis=-1
    )
    return rows_cotangent, gate_cotangent, no_gradient(occupant), no_gradient(place)


collect.defvjp(_collect_forward, _collect_backward)


def no_gradient(x: Int[Array, "..."]) -> np.ndarray:
    """Return the cotangent of an array of integers."""
    return np.zeros(x.shape, jax.dtypes.float0)
