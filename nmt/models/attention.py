"""Multi-head attention over packed rows, and over cached keys and values while decoding."""

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.models.layers import parameter
from nmt.models.numerics import product
from nmt.sharding import shard

MASKED = -1e9  # finite, so that a row that may attend to nothing gives numbers and not NaN


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return softmax(q k / sqrt(D) + bias) v, the softmax in float32.

    Args:
      q: queries [B,T,A,D].
      k: keys [B,S,A,D].
      v: values [B,S,A,D].
      bias: 0 where a query may attend, `MASKED` elsewhere, broadcast to [B,A,T,S].
      dtype: input type of the two products.
    """
    logits = product("btad,bsad->bats", q * q.shape[-1] ** -0.5, k, dtype) + bias
    return product("bats,bsad->btad", jax.nn.softmax(logits, axis=-1), v, dtype)


def attention_bias(query_segment: jax.Array, key_segment: jax.Array, causal: bool = False) -> jax.Array:
    """Return the bias [B,1,T,S] that keeps attention within a segment, out of padding, and if causal in the past."""
    allowed = (query_segment[:, :, None] == key_segment[:, None, :]) & (key_segment[:, None, :] > 0)
    if causal:
        allowed &= jnp.tril(jnp.ones(allowed.shape[1:], bool))
    return jnp.where(allowed, 0.0, MASKED)[:, None]


class Attention(nnx.Module):
    """Projections of multi-head attention, without biases; `heads * head_width` may differ from the width."""

    def __init__(self, width: int, heads: int, head_width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.wq = parameter(rngs, (width, heads, head_width), ("embed", "heads", None), width)
        self.wkv = parameter(rngs, (width, 2, heads, head_width), ("embed", None, "heads", None), width)
        self.wo = parameter(rngs, (heads, head_width, width), ("heads", None, "embed"), heads * head_width)
        self.dtype = dtype

    def queries(self, x: jax.Array) -> jax.Array:
        """Project x [B,T,M] to queries [B,T,A,D]."""
        return product("btm,mad->btad", x, self.wq[...], self.dtype)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Project x [B,S,M] to keys and values, each [B,S,A,D]."""
        both = product("bsm,mcad->cbsad", x, self.wkv[...], self.dtype)
        return both[0], both[1]

    def output(self, heads: jax.Array) -> jax.Array:
        """Project heads [B,T,A,D] to [B,T,M]."""
        return product("btad,adm->btm", heads, self.wo[...], self.dtype)

    def __call__(self, x: jax.Array, memory: jax.Array, bias: jax.Array) -> jax.Array:
        """Attend from x [B,T,M] to memory [B,S,M] (x itself for self-attention)."""
        q = shard(self.queries(x), "batch", "length", "heads", None)
        k, v = self.keys_values(memory)
        return self.output(attend(q, k, v, bias, self.dtype))
