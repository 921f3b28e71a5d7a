"""Stochastic rounding of bfloat16 weights (Gupta et al. 2015, arXiv:1502.02551, section 3).

A bfloat16 weight w has eight bits of precision. Rounded to the nearest number, an update below |w| / 512 would be lost,
each time, and late in training nearly all updates are that small. So a sum is rounded up at random, with a probability
equal to the fraction that is cut off: its mean is then the exact sum.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, BFloat16, Float32, PRNGKeyArray

from nmt.models.numerics import random_bits

ROUNDING = 0xB16  # sets the key of rounding apart from those of the model


def to_float32(tree: Any) -> Any:
    """Return arrays in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def apply_updates(parameters: nnx.State, updates: Any, key: PRNGKeyArray) -> nnx.State:
    """Return parameters plus updates, added up in float32, in the type of the parameters.

    Args:
      parameters: float32, or bfloat16, which are rounded stochastically.
      updates: a tree of float32 arrays like that of the parameters.
      key: the key of this step.
    """
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(jax.random.fold_in(key, ROUNDING), len(leaves))
    sums = [
        weight.astype(jnp.float32) + update for weight, update in zip(leaves, jax.tree.leaves(updates), strict=True)
    ]
    rounded = [
        total if weight.dtype == jnp.float32 else to_bfloat16(total, one)
        for weight, total, one in zip(leaves, sums, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, rounded)


def to_bfloat16(x: Float32[Array, "*any"], key: PRNGKeyArray) -> BFloat16[Array, "*any"]:
    """Return numbers in bfloat16, each rounded up or down at random so that its mean is exact."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = random_bits(x.shape, jax.random.bits(key, (2,), jnp.uint32)) >> 16
    cut = (bits + noise) & np.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(cut, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
