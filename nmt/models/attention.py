"""Multi-head attention over packed rows, and over cached keys and values while decoding."""

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import ModelConfig
from nmt.models.layers import Init, bias_parameter, biased, parameter
from nmt.models.numerics import contract, dropout, product
from nmt.models.positions import Turn, unturned
from nmt.sharding import shard

MASKED = -1e9  # finite, so that a row that may attend to nothing gives numbers and not NaN


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    dtype: jnp.dtype,
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Return softmax(q k / sqrt(D) + bias) v, the softmax in float32.

    Args:
      q: queries [B,T,A,D].
      k: keys [B,S,A,D].
      v: values [B,S,A,D].
      bias: 0, or what positions add, where a query may attend, `MASKED` elsewhere; broadcasts to [B,A,T,S].
      dtype: input type of the two products.
      rate: dropout of the weights of attention.
      key: random key for it; None: none.
    """
    logits = contract("btad,bsad->bats", q * q.shape[-1] ** -0.5, k, dtype) + bias
    weights = dropout(jax.nn.softmax(logits, axis=-1), rate, key)
    return contract("bats,bsad->btad", weights, v, dtype)


def attention_bias(query_segment: jax.Array, key_segment: jax.Array, causal: bool = False) -> jax.Array:
    """Return the bias [B,1,T,S] that keeps attention within a segment, out of padding, and if causal in the past."""
    allowed = (query_segment[:, :, None] == key_segment[:, None, :]) & (key_segment[:, None, :] > 0)
    if causal:
        allowed &= jnp.tril(jnp.ones(allowed.shape[1:], bool))
    return jnp.where(allowed, 0.0, MASKED)[:, None]


class Attention(nnx.Module):
    """Projections of multi-head attention; `heads * head_width` may differ from the width.

    Args:
      config: the model's configuration.
      dtype: input type of products.
      rngs: random streams for the parameters.
      turn: what is done to queries and keys by their positions.
    """

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs, turn: Turn = unturned):
        width, heads, head_width, init = config.width, config.heads, config.head_width, Init.of(config)
        inner = heads * head_width
        # Queries, keys and values are drawn as the one matrix [M,3*A*D] that fairseq's are, which xavier sees.
        self.wq = parameter(rngs, (width, heads, head_width), ("embed", "heads", None), width, 3 * inner, init)
        self.wkv = parameter(
            rngs, (width, 2, heads, head_width), ("embed", None, "heads", None), width, 3 * inner, init
        )
        self.wo = parameter(rngs, (heads, head_width, width), ("heads", None, "embed"), inner, width, init)
        self.bq = bias_parameter(config.bias, (heads, head_width), ("heads", None))
        self.bkv = bias_parameter(config.bias, (2, heads, head_width), (None, "heads", None))
        self.bo = bias_parameter(config.bias, (width,), ("embed",))
        self.dtype, self.rate, self.turn = dtype, config.attention_dropout, turn

    def queries(self, x: jax.Array) -> jax.Array:
        """Project x [B,T,M] to queries [B,T,A,D]."""
        return biased(product("btm,mad->btad", x, self.wq[...], self.dtype), self.bq)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Project x [B,S,M] to keys and values, each [B,S,A,D]."""
        both = product("bsm,mcad->cbsad", x, self.wkv[...], self.dtype)
        k, v = both[0], both[1]
        return (k, v) if self.bkv is None else (k + self.bkv[0], v + self.bkv[1])

    def output(self, heads: jax.Array) -> jax.Array:
        """Project heads [B,T,A,D] to [B,T,M]."""
        return biased(product("btad,adm->btm", heads, self.wo[...], self.dtype), self.bo)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        bias: jax.Array,
        position: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Attend from x [B,T,M] to memory [B,S,M].

        Args:
          x: what attends.
          memory: what it attends to; x itself in self-attention.
          bias: see `attend`.
          position: int32 [B,T] of x and memory in self-attention; None in cross-attention.
          key: random key for the dropout of weights.
        """
        q = shard(self.queries(x), "batch", "length", "heads", None)
        k, v = self.keys_values(memory)
        q, k = self.turn(q, position), self.turn(k, position)
        return self.output(attend(q, k, v, bias, self.dtype, self.rate, key))
