"""Multi-head attention over packed rows, and over cached keys and values while decoding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from nmt.config import ModelConfig
from nmt.models.layers import Init, add_bias, bias_parameter, parameter
from nmt.models.numerics import contract, dropout, product
from nmt.models.positions import rotate
from nmt.sharding import shard

MASKED = -1e9  # finite, so that a row that may attend to nothing gives numbers and not NaN


def attend(
    q: Float[Array, "B T A D"],
    k: Float[Array, "B S A D"],
    v: Float[Array, "B S A D"],
    bias: Float[Array, "#B #A #T #S"],
    dtype: jnp.dtype,
    rate: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Float32[Array, "B T A D"]:
    """Return softmax(q k / sqrt(D) + bias) v, the softmax in float32.

    Args:
      q: queries [B,T,A,D].
      k: keys [B,S,A,D].
      v: values [B,S,A,D].
      bias: `MASKED` where a query may not attend, elsewhere 0 or the bias of positions; broadcasts to [B,A,T,S].
      dtype: input type of the two products.
      rate: dropout of the weights of attention.
      key: random key of dropout; None: no dropout.

    Returns:
      [B,T,A,D], float32.
    """
    logits = contract("btad,bsad->bats", q * q.shape[-1] ** -0.5, k, dtype) + bias
    weights = dropout(jax.nn.softmax(logits, axis=-1), rate, key)
    return contract("bats,bsad->btad", weights, v, dtype)


def attention_bias(
    query_segment: Int[Array, "B T"], key_segment: Int[Array, "B S"], causal: bool = False
) -> Float[Array, "B 1 T S"]:
    """Return the bias [B,1,T,S] that keeps attention within a segment, out of padding, and if causal in the past.

    Args:
      query_segment: int32 [B,T], number of the segment of each query; 0 for padding.
      key_segment: int32 [B,S], the same of keys.
      causal: whether a query attends to its own position and earlier ones only; S is T then.
    """
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
      rotary: whether queries and keys are rotated by their positions.
    """

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs, rotary: bool = False):
        width, heads, head_width, init = config.width, config.heads, config.head_width, Init.from_config(config)
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
        self.dtype, self.rate, self.rotary = dtype, config.attention_dropout, rotary

    def queries(self, x: Float[Array, "B T M"]) -> Float[Array, "B T A D"]:
        """Project x [B,T,M] to queries [B,T,A,D]."""
        return add_bias(product("btm,mad->btad", x, self.wq[...], self.dtype), self.bq)

    def keys_values(self, x: Float[Array, "B S M"]) -> tuple[Float[Array, "B S A D"], Float[Array, "B S A D"]]:
        """Project x [B,S,M] to keys and values, each [B,S,A,D]."""
        both = product("bsm,mcad->cbsad", x, self.wkv[...], self.dtype)
        k, v = both[0], both[1]
        return (k, v) if self.bkv is None else (k + self.bkv[0], v + self.bkv[1])

    def output(self, heads: Float[Array, "B T A D"]) -> Float[Array, "B T M"]:
        """Project heads [B,T,A,D] to [B,T,M]."""
        return add_bias(product("btad,adm->btm", heads, self.wo[...], self.dtype), self.bo)

    def rotate(self, x: Float[Array, "B T A D"], position: Int[Array, "B T"] | None) -> Float[Array, "B T A D"]:
        """Return queries or keys [B,T,A,D], rotated by their positions [B,T] where attention is rotary."""
        return rotate(x, position) if self.rotary else x

    def __call__(
        self,
        x: Float[Array, "B T M"],
        memory: Float[Array, "B S M"],
        bias: Float[Array, "#B #A #T #S"],
        position: Int[Array, "B T"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "B T M"]:
        """Attend from x to memory; return [B,T,M].

        Args:
          x: hidden states [B,T,M] that attend.
          memory: hidden states [B,S,M] that are attended to; x itself in self-attention.
          bias: broadcasts to [B,A,T,S], see `attend`.
          position: int32 [B,T] of x and memory in self-attention; None in cross-attention.
          key: random key for the dropout of weights.
        """
        q = shard(self.queries(x), "batch", "length", "heads", None)
        k, v = self.keys_values(memory)
        q, k = self.rotate(q, position), self.rotate(k, position)
        return self.output(attend(q, k, v, bias, self.dtype, self.rate, key))
