"""The encoder-decoder Transformer: embeddings, the two stacks of layers, logits."""

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import ModelConfig, VocabularySizes
from nmt.models.attention import attention_bias
from nmt.models.embedding import embedding_factor, embedding_table, output_factor, output_table, rows_of
from nmt.models.moe.routing import RoutingStats
from nmt.models.numerics import dropout, product, split_key
from nmt.models.positions import added_positions
from nmt.models.stack import Stack
from nmt.models.tokens import Phase, TokenInfo
from nmt.sharding import shard


class Transformer(nnx.Module):
    """A GShard-style encoder-decoder.

    Its tables [V,M] are `embedding`, or `source_embedding` and `target_embedding`, and `output` where the output layer
    is not the target embedding again; see `nmt.models.embedding`.

    Args:
      config: the model's configuration; `dtype` must be resolved (see `resolve_dtype`).
      vocabulary: V of sources and of targets.
      rngs: random streams for the parameters.
    """

    def __init__(self, config: ModelConfig, vocabulary: VocabularySizes, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(config.dtype)
        if config.embeddings == "separate":
            self.source_embedding = embedding_table(config, vocabulary.source, rngs)
            self.target_embedding = embedding_table(config, vocabulary.target, rngs)
        elif vocabulary.source == vocabulary.target:
            self.embedding = embedding_table(config, vocabulary.source, rngs)
        else:
            raise ValueError(f"one embedding for vocabularies of {vocabulary.source} and {vocabulary.target}")
        if not config.tie_output:
            self.output = output_table(config, vocabulary.target, rngs)
        self.encoder = Stack(config, self.dtype, decoder=False, rngs=rngs)
        self.decoder = Stack(config, self.dtype, decoder=True, rngs=rngs)
        self.positions = added_positions(config, rngs)

    @property
    def source_table(self) -> jax.Array:
        """The embeddings of source tokens, [V,M] of the type of parameters."""
        return (self.source_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def target_table(self) -> jax.Array:
        """The embeddings of target tokens, [V,M] of the type of parameters."""
        return (self.target_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def output_table(self) -> jax.Array:
        """What logits are products with, float32 [V,M]."""
        table = self.target_table if self.config.tie_output else self.output[...]
        return table.astype(jnp.float32)

    def embed(
        self,
        tokens: jax.Array,
        position: jax.Array,
        longest: int,
        key: jax.Array | None = None,
        decoder: bool = False,
    ) -> jax.Array:
        """Return scaled embeddings + positions, dropped out: [B,S,M] for tokens and positions [B,S].

        Args:
          tokens: int32 [B,S].
          position: int32 [B,S], below `longest`.
          longest: positions that there may be.
          key: random key for dropout.
          decoder: whether the tokens are targets.
        """
        table = self.target_table if decoder else self.source_table
        rows = rows_of(table, tokens).astype(jnp.float32)
        x = self.positions.add(rows * embedding_factor(self.config), position, longest)
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
        with jax.named_scope("encoder"):
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
        x = self.embed(tokens, position, tokens.shape[1], embed_key, decoder=True)
        own = attention_bias(segment, segment, causal=True)
        cross = attention_bias(segment, memory_segment)
        info = TokenInfo(tokens, segment > 0, direction, directions, position)
        with jax.named_scope("decoder"):
            return self.decoder(x, own, info, memory, cross, stack_key, phase)

    def output_rows(self, hidden: jax.Array) -> jax.Array:
        """Return the decoder's hidden states [...,M] as rows [R,M], whose products with `output_table` are logits."""
        return hidden.reshape(-1, hidden.shape[-1]) * output_factor(self.config)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Return float32 logits [...,V] for hidden states [...,M] of the decoder."""
        rows = self.output_rows(hidden)
        return product("nm,vm->nv", rows, self.output_table, self.dtype).reshape(*hidden.shape[:-1], -1)
