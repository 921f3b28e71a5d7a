"""The encoder-decoder Transformer: embeddings, the two stacks of layers, logits."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from nmt.config import ModelConfig, VocabularySizes
from nmt.models.attention import attention_bias
from nmt.models.embedding import embedding_factor, embedding_table, look_up, output_factor, output_table
from nmt.models.moe.statistics import RoutingStats
from nmt.models.numerics import dropout, product, split_key
from nmt.models.positions import added_positions
from nmt.models.stack import CrossMemory, Stack
from nmt.models.tokens import PackedTokens, Phase, TokenInfo
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
    def source_table(self) -> Float[Array, "V M"]:
        """The embeddings of source tokens, [V,M] of the type of parameters."""
        return (self.source_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def target_table(self) -> Float[Array, "V M"]:
        """The embeddings of target tokens, [V,M] of the type of parameters."""
        return (self.target_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def output_table(self) -> Float32[Array, "V M"]:
        """The weight of the output layer, float32 [V,M]."""
        table = self.target_table if self.config.tie_output else self.output[...]
        return table.astype(jnp.float32)

    def embed(
        self,
        token: Int[Array, "B S"],
        position: Int[Array, "B S"],
        longest: int,
        key: PRNGKeyArray | None = None,
        decoder: bool = False,
    ) -> Float[Array, "B S M"]:
        """Return scaled embeddings plus positions, dropped out, [B,S,M].

        Args:
          token: int32 [B,S].
          position: int32 [B,S], below `longest`.
          longest: number of positions.
          key: random key for dropout.
          decoder: whether the tokens are targets.
        """
        table = self.target_table if decoder else self.source_table
        rows = look_up(table, token).astype(jnp.float32)
        x = self.positions.add(rows * embedding_factor(self.config), position, longest)
        x = dropout(x, self.config.dropout, key).astype(self.config.activation_dtype)
        return shard(x, "batch", "length", "embed")

    def encode(
        self,
        source: PackedTokens,
        key: PRNGKeyArray | None = None,
        phase: Phase = Phase.INFER,
        directions: int = 0,
    ) -> tuple[Float32[Array, "B S M"], RoutingStats | None]:
        """Encode packed sources [B,S].

        Args:
          source: the tokens.
          key: random key of dropout and routing; None turns both off.
          phase: see `Phase`.
          directions: number of directions of the recipe (L) for statistics by direction; 0: none.

        Returns:
          Hidden states, float32 [B,S,M], and the routing statistics of the sparse layers.
        """
        embed_key, stack_key = split_key(key, 2)
        x = self.embed(source.token, source.position, source.token.shape[1], embed_key)
        bias = attention_bias(source.segment, source.segment)
        with jax.named_scope("encoder"):
            return self.encoder(x, bias, _token_info(source, directions), key=stack_key, phase=phase)

    def decode(
        self,
        target: PackedTokens,
        memory: Float[Array, "B S M"],
        memory_segment: Int[Array, "B S"],
        key: PRNGKeyArray | None = None,
        phase: Phase = Phase.INFER,
        directions: int = 0,
    ) -> tuple[Float32[Array, "B T M"], RoutingStats | None]:
        """Read packed, shifted targets [B,T].

        Args:
          target: the tokens, each sentence behind its begin token.
          memory: the encoded sources [B,S,M].
          memory_segment: int32 [B,S], their segments.
          key, phase, directions: see `encode`.

        Returns:
          Hidden states, float32 [B,T,M], and the routing statistics of the sparse layers.
        """
        embed_key, stack_key = split_key(key, 2)
        x = self.embed(target.token, target.position, target.token.shape[1], embed_key, decoder=True)
        bias = attention_bias(target.segment, target.segment, causal=True)
        cross = CrossMemory(memory, attention_bias(target.segment, memory_segment))
        with jax.named_scope("decoder"):
            return self.decoder(x, bias, _token_info(target, directions), cross, stack_key, phase)

    def update_buffers(self, stats: Mapping[str, RoutingStats]) -> None:
        """Move the buffers of all layers after a step by the statistics of its whole batch, by stack."""
        for stack, found in stats.items():
            (self.encoder if stack == "encoder" else self.decoder).update_buffers(found)

    def output_rows(self, hidden: Float[Array, "*any M"]) -> Float[Array, "R M"]:
        """Return the decoder's hidden states [...,M] as rows [R,M], whose products with `output_table` are logits."""
        return hidden.reshape(-1, hidden.shape[-1]) * output_factor(self.config)

    def logits(self, hidden: Float[Array, "*any M"]) -> Float32[Array, "*any V"]:
        """Return float32 logits [...,V] for hidden states [...,M] of the decoder."""
        rows = self.output_rows(hidden)
        return product("rm,vm->rv", rows, self.output_table, self.dtype).reshape(*hidden.shape[:-1], -1)


def _token_info(tokens: PackedTokens, directions: int) -> TokenInfo:
    return TokenInfo(tokens.token, tokens.segment > 0, tokens.direction, directions, tokens.position)
