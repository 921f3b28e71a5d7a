"""Rows of tokens gathered to places, and weighted back: both ways of the map are known, so both derivatives gather too.

The derivative of a gather is a scatter-add, which is slow on every accelerator; here it is another gather. Places that
are empty hold some token's row: what experts make of it meets no gate, and so the gradient that comes back there is
zero.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def invert(place: jax.Array, places: int) -> jax.Array:
    """Return, for each of so many places, the token [places] whose choice [N,K] fills it; N where none does."""
    tokens, choices = place.shape
    owner = jnp.repeat(jnp.arange(tokens, dtype=jnp.int32), choices)
    return jnp.full((places,), tokens, jnp.int32).at[place.reshape(-1)].set(owner, mode="drop", unique_indices=False)


def take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Gather rows; an index past the end gives some row, which no result may depend on."""
    return jnp.take(rows, index, axis=0, mode="clip")


def weighted_sum(rows: Sequence[jax.Array], weight: jax.Array) -> jax.Array:
    """Return the sum of K arrays of rows [...,N,M], of one type, by weight [...,N,K]: [...,N,M], summed in float32."""
    # A sum over an axis of two would be a pass of its own; written out it is part of the gather.
    parts = [row.astype(jnp.float32) * weight[..., k, None] for k, row in enumerate(rows)]
    return functools.reduce(jnp.add, parts).astype(rows[0].dtype)


def _weighted(rows: jax.Array, index: jax.Array, weight: jax.Array) -> jax.Array:
    """Return, for each token, the sum of its K rows [R,M] at index [N,K] by weight [N,K]: [N,M]."""
    return weighted_sum([take(rows, index[:, k]) for k in range(index.shape[1])], weight)


@jax.custom_vjp
def send(x: jax.Array, occupant: jax.Array, place: jax.Array) -> jax.Array:
    """Gather tokens to places.

    Args:
      x: tokens [N,M], of any type; the result has it too.
      occupant: int32 [P], the token of each place, N where it is empty.
      place: int32 [N,K], the place of each choice, P where it has none.

    Returns:
      [P,M].
    """
    return take(x, occupant)


def _send_forward(x: jax.Array, occupant: jax.Array, place: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return take(x, occupant), (occupant, place)


def _send_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    occupant, place = saved
    x_cotangent = _weighted(gradient, place, (place < occupant.shape[0]).astype(jnp.float32))
    return x_cotangent, no_gradient(occupant), no_gradient(place)


send.defvjp(_send_forward, _send_backward)


@jax.custom_vjp
def collect(rows: jax.Array, gate: jax.Array, occupant: jax.Array, place: jax.Array) -> jax.Array:
    """Gather rows [P,M] back to tokens [N,M], weighted by gates, float32 [N,K]; the others as for `send`."""
    return _weighted(rows, place, gate)


def _collect_forward(
    rows: jax.Array, gate: jax.Array, occupant: jax.Array, place: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _weighted(rows, place, gate), (rows, gate, occupant, place)


def _collect_backward(
    saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, np.ndarray, np.ndarray]:
    rows, gate, occupant, place = saved
    gate_of_place = jnp.zeros((rows.shape[0],), gate.dtype).at[place.reshape(-1)].set(gate.reshape(-1), mode="drop")
    rows_cotangent = (take(gradient, occupant) * gate_of_place[:, None]).astype(rows.dtype)
    gradient = gradient.astype(gate.dtype)
    gate_cotangent = jnp.stack(
        [(take(rows, place[:, k]) * gradient).sum(axis=-1) for k in range(gate.shape[1])], axis=-1
    )
    return rows_cotangent, gate_cotangent, no_gradient(occupant), no_gradient(place)


collect.defvjp(_collect_forward, _collect_backward)


def no_gradient(x: jax.Array) -> np.ndarray:
    """Return the cotangent of an array of integers."""
    return np.zeros(x.shape, jax.dtypes.float0)
