"""Buffers: state of a model that is not learnt by gradients, beside its parameters.

A buffer stands in the model as a parameter does and has logical axes as a parameter has, so it is stacked over layers,
placed on the mesh, saved and restored alike. It has no gradient: the optimizer, weight decay, the gradient norm, the
moving average and the count of parameters do not see it. A train step changes it by a rule of the layer that owns it,
from the statistics of the whole batch (`Stack.update_buffers`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class Buffer(nnx.Variable[jax.Array]):
    """An array of a model that no gradient changes."""


def buffer(shape: Sequence[int], axes: Sequence[str | None]) -> Buffer:
    """Return a buffer, float32 and first zero, with a logical axis for each dimension."""
    return Buffer(jnp.zeros(tuple(shape), jnp.float32), logical_axes=tuple(axes))
