"""The encoder-decoder Transformer: embeddings, the two stacks of layers, logits."""

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import ModelConfig
from nmt.models.attention import attention_bias
from nmt.models.moe.routing import RoutingStats
from nmt.models.numerics import dropout, product, split_key
from nmt.models.positions import added_positions
from nmt.models.stack import Stack
from nmt.models.tokens import Phase, TokenInfo
from nmt.sharding import shard


class Transformer(nnx.Module):
    """A GShard-style encoder-decoder with one embedding for source, target and output.

    Args:
      config: the model's configuration; `dtype` must be resolved (see `resolve_dtype`).
      vocabulary: V.
      rngs: random streams for the parameters.
    """

    def __init__(self, config: ModelConfig, vocabulary: int, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(config.dtype)
        scale = config.width**-0.5
        table = scale * jax.random.normal(rngs.params(), (vocabulary, config.width), jnp.float32)
        self.embedding = nnx.Param(table, logical_axes=("vocab", "embed"))
        self.encoder = Stack(config, self.dtype, decoder=False, rngs=rngs)
        self.decoder = Stack(config, self.dtype, decoder=True, rngs=rngs)
        self.positions = added_positions(config, rngs)

    def embed(self, tokens: jax.Array, position: jax.Array, longest: int, key: jax.Array | None = None) -> jax.Array:
        """Return sqrt(M) * embedding + position, dropped out: [B,S,M] for tokens and positions [B,S].

        Args:
          tokens: int32 [B,S].
          position: int32 [B,S], below `longest`.
          longest: positions that there may be.
          key: random key for dropout.
        """
        x = self.positions.add(self.embedding[...][tokens] * self.config.width**0.5, position, longest)
        x = dropout(x, self.config.dropout, key).astype(self.config.activation_dtype)
        return shard(x, "batch", "length", "embed")

    def encode(
        self,
        tokens: jax.Array,
        segment: jax.Array,
        position: jax.Array,
        key: jax.Array | None = None,
        phase: Phase = Phase.INFER,
        direction: jax.Array | None = None,
        directions: int = 0,
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Encode packed sources, int32 [B,S] each, to memory [B,S,M]; also return the routing statistics."""
        embed_key, stack_key = split_key(key, 2)
        x = self.embed(tokens, position, tokens.shape[1], embed_key)
        info = TokenInfo(tokens, segment > 0, direction, directions, position)
        return self.encoder(x, attention_bias(segment, segment), info, key=stack_key, phase=phase)

    def decode(
        self,
        tokens: jax.Array,
        segment: jax.Array,
        position: jax.Array,
        memory: jax.Array,
        memory_segment: jax.Array,
        key: jax.Array | None = None,
        phase: Phase = Phase.INFER,
        direction: jax.Array | None = None,
        directions: int = 0,
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Read packed, shifted targets, int32 [B,T] each; return hidden states [B,T,M] and routing statistics."""
        embed_key, stack_key = split_key(key, 2)
        x = self.embed(tokens, position, tokens.shape[1], embed_key)
        own = attention_bias(segment, segment, causal=True)
        cross = attention_bias(segment, memory_segment)
        info = TokenInfo(tokens, segment > 0, direction, directions, position)
        return self.decoder(x, own, info, memory, cross, stack_key, phase)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Return float32 logits [...,V] for hidden states [...,M]."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        return product("nm,vm->nv", rows, self.embedding[...], self.dtype).reshape(*hidden.shape[:-1], -1)
