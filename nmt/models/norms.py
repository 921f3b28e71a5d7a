"""Normalisation of the last dimension, in float32; the result has the type of the input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from nmt.config import ModelConfig

Mean = Callable[[Float32[Array, "*any M"]], Float32[Array, "*any 1"]]  # over the last axis


def _mean(x: Float32[Array, "*any M"]) -> Float32[Array, "*any 1"]:
    return jnp.mean(x, axis=-1, keepdims=True)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation with a scale and no bias (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, epsilon: float = 1e-6):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), logical_axes=("embed",))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*any M"], mean: Mean = _mean) -> Float[Array, "*any M"]:
        """Normalise x [...,M] by means that a function computes."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(mean(y * y) + self.epsilon) * self.scale[...]
        return y.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation with a scale and a bias (Ba et al. 2016, arXiv:1607.06450)."""

    def __init__(self, width: int, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), logical_axes=("embed",))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32), logical_axes=("embed",))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*any M"], mean: Mean = _mean) -> Float[Array, "*any M"]:
        """Normalise x [...,M] by means that a function computes."""
        y = x.astype(jnp.float32)
        y = y - mean(y)
        y = y * jax.lax.rsqrt(mean(y * y) + self.epsilon)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


Norm = RMSNorm | LayerNorm

_NORMS: dict[str, type[RMSNorm] | type[LayerNorm]] = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


def make_norm(config: ModelConfig) -> Norm:
    """Return a norm of the model's kind."""
    return _NORMS[config.norm](config.width, config.norm_epsilon)
