"""Parameters with logical axes, RMSNorm, sinusoidal positions, the dense feed-forward layer."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nmt.models.numerics import dropout, product


def parameter(rngs: nnx.Rngs, shape: Sequence[int], axes: Sequence[str | None], fan_in: int) -> nnx.Param[jax.Array]:
    """Return a float32 parameter drawn from Uniform(+-sqrt(3 / fan_in)), as Lingvo's GShard layers are initialised.

    Args:
      rngs: random streams; `params` is drawn from.
      shape: shape of the array.
      axes: logical axis of each dimension, kept as metadata `logical_axes`.
      fan_in: inputs that one output sums over.
    """
    bound = (3.0 / fan_in) ** 0.5
    value = jax.random.uniform(rngs.params(), tuple(shape), jnp.float32, -bound, bound)
    return nnx.Param(value, logical_axes=tuple(axes))


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation with a scale and no bias, in float32."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32), logical_axes=("embed",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise the last dimension of x [...,M]."""
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * self.scale[...]


def sinusoids(length: int, width: int) -> np.ndarray:
    """Return sinusoidal positions [length, M]: sines in the first half, cosines in the second."""
    frequency = 10_000.0 ** -(np.arange(width // 2) / max(width // 2 - 1, 1))
    angle = np.arange(length)[:, None] * frequency
    table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return np.pad(table, ((0, 0), (0, width % 2))).astype(np.float32)


class FeedForward(nnx.Module):
    """The dense feed-forward layer: two products without biases around a ReLU."""

    def __init__(self, width: int, hidden: int, rate: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.wi = parameter(rngs, (width, hidden), ("embed", "mlp"), width)
        self.wo = parameter(rngs, (hidden, width), ("mlp", "embed"), hidden)
        self.rate, self.dtype = rate, dtype

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Transform x [...,M]; with a key, hidden units are dropped out."""
        rows = x.reshape(-1, x.shape[-1])
        hidden = jax.nn.relu(product("nm,mh->nh", rows, self.wi[...], self.dtype))
        hidden = dropout(hidden, self.rate, key)
        return product("nh,hm->nm", hidden, self.wo[...], self.dtype).reshape(x.shape)
