"""Label-smoothed cross-entropy with a z-loss, its derivative written out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nmt.models.numerics import contract_rows
from nmt.sharding import einsum, left_to_xla


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    smoothing: float,
    dtype: jnp.dtype,
    z_weight: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Return summed smoothed cross-entropy [] and the negative log-likelihood of each target [R].

    The z-loss adds `z_weight * log(sum exp logits)^2` for each target, which keeps the logits from drifting away from
    zero (PaLM, section 5).

    The derivative is softmax minus smoothed target, in one pass over the logits; automatic differentiation takes
    several, and on a CPU these passes are bound by memory. The z-loss is 2 z_weight log(sum exp logits) more softmax.

    Args:
      hidden: float32 [R,M].
      table: output embedding, float32 [V,M].
      target: int32 [R].
      weight: float32 [R], 0 for padding.
      smoothing: share of the target distribution that is uniform over V.
      dtype: input type of the products.
      z_weight: coefficient of the z-loss.
    """
    return _forward(hidden, table, target, weight, smoothing, dtype, z_weight)[0]


def _forward(
    hidden: jax.Array,
    table: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    smoothing: float,
    dtype: jnp.dtype,
    z_weight: float,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, ...]]:
    hidden, table = hidden.astype(dtype), table.astype(dtype)
    logits = einsum("rm,vm->rv", hidden, table, preferred_element_type=jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    nll = normaliser - left_to_xla(_entries, ("batch",))(logits, target)
    uniform = normaliser - logits.mean(axis=-1)
    z_loss = z_weight * jnp.square(normaliser)
    total = (weight * ((1 - smoothing) * nll + smoothing * uniform + z_loss)).sum()
    return (total, nll), (hidden, table, target, weight, logits, normaliser)


def _entries(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the logit [R] of each target."""
    return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]


def _backward(
    smoothing: float,
    dtype: jnp.dtype,
    z_weight: float,
    saved: tuple[jax.Array, ...],
    gradient: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array, np.ndarray, None]:
    hidden, table, target, weight, logits, normaliser = saved
    scale = (weight * gradient[0])[:, None]
    of_normaliser = 1.0 + 2.0 * z_weight * normaliser[:, None]
    vocabulary = logits.shape[-1]
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == target[:, None]
    wanted = jnp.where(is_target, 1 - smoothing, 0.0) + smoothing / vocabulary
    of_logits = (scale * (of_normaliser * jnp.exp(logits - normaliser[:, None]) - wanted)).astype(dtype)
    of_hidden = einsum("rv,vm->rm", of_logits, table, preferred_element_type=jnp.float32)
    of_table = contract_rows("rv", of_logits, "rm", hidden, "vm")
    return of_hidden, of_table, np.zeros(target.shape, jax.dtypes.float0), None


cross_entropy.defvjp(_forward, _backward)
