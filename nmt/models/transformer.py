"""The encoder-decoder Transformer: pre-norm layers, experts in every n-th, scanned in repeating blocks.

A block is `moe.every` layers, the last of them sparse. The blocks of a stack share one structure, so a stack is one
block whose parameters carry a leading `layers` axis, and compile time does not grow with depth.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import ModelConfig, VocabularySizes
from nmt.models.attention import Attention, attention_bias
from nmt.models.embedding import embedding_factor, embedding_table, output_factor, output_table
from nmt.models.layers import FeedForward, RMSNorm, sinusoids
from nmt.models.moe.layer import MoE
from nmt.models.moe.routing import RoutingStats
from nmt.models.numerics import dropout, product, split_key
from nmt.models.tokens import Phase, TokenInfo
from nmt.sharding import shard


class Layer(nnx.Module):
    """Self-attention, in a decoder cross-attention, and a feed-forward layer, each pre-normed with a residual."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, sparse: bool, rngs: nnx.Rngs):
        def attention() -> Attention:
            return Attention(config.width, config.heads, config.head_width, dtype, rngs)

        self.self_norm, self.self_attention = RMSNorm(config.width), attention()
        if decoder:
            self.cross_norm, self.cross_attention = RMSNorm(config.width), attention()
        self.ff_norm = RMSNorm(config.width)
        if sparse:
            assert config.moe is not None
            self.moe = MoE(config.width, config.hidden, config.moe, dtype, rngs)
        else:
            self.ff = FeedForward(config.width, config.hidden, config.dropout, dtype, rngs)
        self.decoder, self.sparse, self.rate = decoder, sparse, config.dropout

    def feed_forward(
        self, x: jax.Array, info: TokenInfo, key: jax.Array | None = None, phase: Phase = Phase.INFER
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Return the feed-forward residual for x [B,S,M], and routing statistics of a sparse layer."""
        route_key, drop_key = split_key(key, 2)
        y = self.ff_norm(x)
        if self.sparse:
            y, stats = self.moe(y, info, route_key, phase)
        else:
            y, stats = self.ff(y, route_key), None
        return dropout(y, self.rate, drop_key), stats

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        info: TokenInfo,
        memory: jax.Array | None,
        memory_bias: jax.Array | None,
        key: jax.Array | None,
        phase: Phase,
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Transform x [B,S,M]; memory [B,S',M] is what a decoder's cross-attention reads."""
        self_key, cross_key, ff_key = split_key(key, 3)
        y = self.self_norm(x)
        x = x + dropout(self.self_attention(y, y, bias), self.rate, self_key)
        if self.decoder:
            assert memory is not None
            assert memory_bias is not None
            y = self.cross_attention(self.cross_norm(x), memory, memory_bias)
            x = x + dropout(y, self.rate, cross_key)
        y, stats = self.feed_forward(x, info, ff_key, phase)
        return shard(x + y, "batch", "length", "embed"), stats


class Stack(nnx.Module):
    """The layers of an encoder or a decoder, with a final norm."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, rngs: nnx.Rngs):
        layers = config.decoder_layers if decoder else config.encoder_layers
        every = config.moe.every if config.moe else 1
        self.count, self.every = layers // every, every

        def block(rngs: nnx.Rngs) -> nnx.List[Layer]:
            sparse = [config.moe is not None and i == every - 1 for i in range(every)]
            return nnx.List([Layer(config, dtype, decoder, s, rngs) for s in sparse])

        self.blocks = _stacked(block, self.count, rngs)
        self.norm = RMSNorm(config.width)

    def layer(self, index: int) -> Layer:
        """Return one layer by itself, with its own parameters: for unrolled use, as in decoding."""
        graph, state = nnx.split(self.blocks)
        block = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[index // self.every], state))
        return block[index % self.every]

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        info: TokenInfo,
        memory: jax.Array | None = None,
        memory_bias: jax.Array | None = None,
        key: jax.Array | None = None,
        phase: Phase = Phase.INFER,
    ) -> tuple[jax.Array, RoutingStats | None]:
        """Transform x [B,S,M]; the statistics have a leading axis over the sparse layers (None if there are none)."""
        graph, state = nnx.split(self.blocks)

        def run(x: jax.Array, step: tuple[nnx.State, jax.Array]) -> tuple[jax.Array, RoutingStats | None]:
            state, index = step
            block_key = None if key is None else jax.random.fold_in(key, index)
            stats = None
            for layer, layer_key in zip(nnx.merge(graph, state), split_key(block_key, self.every), strict=True):
                x, stats = layer(x, bias, info, memory, memory_bias, layer_key, phase)
            return x, stats

        x, stats = jax.lax.scan(run, x, (state, jnp.arange(self.count)))
        return self.norm(x), stats


def _stacked(make: Callable[[nnx.Rngs], nnx.List[Layer]], count: int, rngs: nnx.Rngs) -> nnx.List[Layer]:
    """Return one block whose every parameter has a leading axis `layers` over so many independent draws."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> nnx.List[Layer]:
        return make(rngs)

    blocks = create(rngs)
    for _, node in nnx.iter_graph(blocks):
        if isinstance(node, nnx.Param):
            node.set_metadata(logical_axes=("layers", *node.get_metadata()["logical_axes"]))
    return blocks


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

    @property
    def source_table(self) -> jax.Array:
        """The embeddings of source tokens, float32 [V,M]."""
        return (self.source_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def target_table(self) -> jax.Array:
        """The embeddings of target tokens, float32 [V,M]."""
        return (self.target_embedding if self.config.embeddings == "separate" else self.embedding)[...]

    @property
    def output_table(self) -> jax.Array:
        """What logits are products with, float32 [V,M]."""
        return self.target_table if self.config.tie_output else self.output[...]

    def embed(
        self,
        tokens: jax.Array,
        position: jax.Array,
        longest: int,
        key: jax.Array | None = None,
        decoder: bool = False,
    ) -> jax.Array:
        """Return scaled embeddings + sinusoidal positions, dropped out: [B,S,M] for tokens and positions [B,S].

        Args:
          tokens: int32 [B,S].
          position: int32 [B,S], below `longest`.
          longest: rows of the table of positions.
          key: random key for dropout.
          decoder: whether the tokens are targets.
        """
        width = self.config.width
        table = self.target_table if decoder else self.source_table
        x = table[tokens] * embedding_factor(self.config) + jnp.asarray(sinusoids(longest, width))[position]
        return shard(dropout(x, self.config.dropout, key), "batch", "length", "embed")

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
        info = TokenInfo(tokens, segment > 0, direction, directions)
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
        info = TokenInfo(tokens, segment > 0, direction, directions)
        return self.decoder(x, own, info, memory, cross, stack_key, phase)

    def output_rows(self, hidden: jax.Array) -> jax.Array:
        """Return the decoder's hidden states [...,M] as rows [R,M], whose products with `output_table` are logits."""
        return hidden.reshape(-1, hidden.shape[-1]) * output_factor(self.config)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Return float32 logits [...,V] for hidden states [...,M] of the decoder."""
        rows = self.output_rows(hidden)
        return product("nm,vm->nv", rows, self.output_table, self.dtype).reshape(*hidden.shape[:-1], -1)
