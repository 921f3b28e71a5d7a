"""Label-smoothed cross-entropy with a z-loss, its derivative written out."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from nmt.models.numerics import contract_rows
from nmt.sharding import einsum, left_to_xla


@dataclass(frozen=True)
class OutputLoss:
    """The terms of the loss of the output layer beside the likelihood of the target.

    Args:
      smoothing: label smoothing: the share of the target distribution that is uniform over the vocabulary.
      z_weight: coefficient of the z-loss, `log(sum exp logits)^2` for each target, which keeps the logits from drifting
        away from zero (PaLM, arXiv:2204.02311, section 5).
    """

    smoothing: float = 0.0
    z_weight: float = 0.0


# Summed loss, and the negative log-likelihood of each target.
Losses = tuple[Float32[Array, ""], Float32[Array, " R"]]
# Kept for the derivative: the first four arguments, the logits, and the logarithm of their summed exponentials.
Kept = tuple[
    Float[Array, "R M"],
    Float[Array, "V M"],
    Int[Array, " R"],
    Float[Array, " R"],
    Float[Array, "R V"],
    Float[Array, " R"],
]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def cross_entropy(
    hidden: Float[Array, "R M"],
    table: Float[Array, "V M"],
    target: Int[Array, " R"],
    weight: Float[Array, " R"],
    terms: OutputLoss,
    dtype: jnp.dtype,
) -> Losses:
    """Return the summed loss of the targets and the negative log-likelihood of each, in nats.

    The derivative is softmax minus smoothed target, in one pass over the logits; automatic differentiation takes
    several, and on a CPU these passes are bound by memory. The z-loss adds to it the softmax times
    2 z_weight log(sum exp logits).

    Args:
      hidden: the last hidden state of each target.
      table: the output embeddings.
      target: token ids.
      weight: the factor of each target in the sum, 0 for padding.
      terms: label smoothing and z-loss.
      dtype: input type of the products.
    """
    return _forward(hidden, table, target, weight, terms, dtype)[0]


def _forward(
    hidden: Float[Array, "R M"],
    table: Float[Array, "V M"],
    target: Int[Array, " R"],
    weight: Float[Array, " R"],
    terms: OutputLoss,
    dtype: jnp.dtype,
) -> tuple[Losses, Kept]:
    hidden, table = hidden.astype(dtype), table.astype(dtype)
    logits = einsum("rm,vm->rv", hidden, table, preferred_element_type=jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    nll = normaliser - left_to_xla(_entries, ("batch",))(logits, target)
    uniform = normaliser - logits.mean(axis=-1)
    z_loss = terms.z_weight * jnp.square(normaliser)
    total = (weight * ((1 - terms.smoothing) * nll + terms.smoothing * uniform + z_loss)).sum()
    return (total, nll), (hidden, table, target, weight, logits, normaliser)


def _entries(logits: Float[Array, "R V"], target: Int[Array, " R"]) -> Float[Array, " R"]:
    """Return the logit of each target."""
    return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]


def _backward(
    terms: OutputLoss, dtype: jnp.dtype, kept: Kept, cotangent: Losses
) -> tuple[Float32[Array, "R M"], Float32[Array, "V M"], np.ndarray, None]:
    hidden, table, target, weight, logits, normaliser = kept
    scale = (weight * cotangent[0])[:, None]
    normaliser_factor = 1.0 + 2.0 * terms.z_weight * normaliser[:, None]
    vocabulary = logits.shape[-1]
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1) == target[:, None]
    wanted = jnp.where(is_target, 1 - terms.smoothing, 0.0) + terms.smoothing / vocabulary
    logits_cotangent = (scale * (normaliser_factor * jnp.exp(logits - normaliser[:, None]) - wanted)).astype(dtype)
    hidden_cotangent = einsum("rv,vm->rm", logits_cotangent, table, preferred_element_type=jnp.float32)
    table_cotangent = contract_rows("rv", logits_cotangent, "rm", hidden, "vm")
    return hidden_cotangent, table_cotangent, np.zeros(target.shape, jax.dtypes.float0), None


cross_entropy.defvjp(_forward, _backward)
