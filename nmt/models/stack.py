"""The layers of the Transformer: pre-norm, experts in every n-th, scanned in repeating blocks.

A block is `moe.every` layers, one of them sparse. The blocks of a stack share one structure, so they are one block
whose parameters carry a leading `layers` axis, and compile time does not grow with depth. Layers that are too few for
another block come after the scan, one by one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import ModelConfig
from nmt.models import remat
from nmt.models.attention import Attention
from nmt.models.layers import FeedForward, in_use
from nmt.models.moe.layer import ExpertOptions, MoE
from nmt.models.moe.regularise import toss
from nmt.models.moe.routing import RoutingStats
from nmt.models.norms import make_norm
from nmt.models.numerics import dropout, split_key
from nmt.models.positions import position_bias, turn_of
from nmt.models.tokens import Phase, TokenInfo
from nmt.sharding import shard

Statistics = RoutingStats | None


class Layer(nnx.Module):
    """Self-attention, in a decoder cross-attention, and a feed-forward layer, each pre-normed with a residual.

    Where ST-MoE's `extra_dense` is on, a dense feed-forward layer follows the sparse one (arXiv:2202.08906, section 5).
    """

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, sparse: bool, rngs: nnx.Rngs):
        self.self_norm = make_norm(config)
        self.self_attention = Attention(config, dtype, rngs, turn_of(config))
        if decoder:
            self.cross_norm, self.cross_attention = make_norm(config), Attention(config, dtype, rngs)
        self.ff_norm = make_norm(config)
        if sparse:
            assert config.moe is not None
            options = ExpertOptions.of(config)
            self.moe = MoE(config.width, config.hidden, config.moe, dtype, rngs, decoder, options)
            if config.moe.extra_dense:
                self.extra_norm, self.extra = make_norm(config), FeedForward(config, dtype, rngs)
        else:
            self.ff = FeedForward(config, dtype, rngs)
        self.sparse, self.has_extra = sparse, sparse and hasattr(self, "extra")
        self.decoder, self.rate, self.remat = decoder, config.dropout, config.remat

    def feed_forward(
        self, x: jax.Array, info: TokenInfo, key: jax.Array | None = None, phase: Phase = Phase.INFER
    ) -> tuple[jax.Array, Statistics]:
        """Return x [B,S,M] after the feed-forward layers, and routing statistics of a sparse layer."""
        inner_key, drop_key, extra_key, extra_drop_key = split_key(key, 4)
        with jax.named_scope("moe" if self.sparse else "feed_forward"):
            y, stats = self.ff_norm(x), None
            if self.sparse:
                run = remat.experts(self.remat, lambda y, info, key: self.moe(y, info, key, phase))
                y, stats = run(y, info, inner_key)
            else:
                y = self.ff(y, inner_key)
            x = self.add(x, y, drop_key)
            if self.has_extra:
                x = self.add(x, self.extra(self.extra_norm(x), extra_key), extra_drop_key)
        return x, stats

    def add(self, x: jax.Array, y: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return x plus a residual y, dropped out, in the type of x."""
        return (x + dropout(y, self.rate, key)).astype(x.dtype)

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        info: TokenInfo,
        memory: jax.Array | None,
        memory_bias: jax.Array | None,
        key: jax.Array | None,
        phase: Phase,
    ) -> tuple[jax.Array, Statistics]:
        """Transform x [B,S,M]; memory [B,S',M] is what a decoder's cross-attention reads."""
        self_key, cross_key, ff_key, self_weights_key, cross_weights_key = split_key(key, 5)
        with jax.named_scope("self_attention"):
            y = self.self_norm(x)
            x = self.add(x, self.self_attention(y, y, bias, info.position, self_weights_key), self_key)
        if self.decoder:
            assert memory is not None
            assert memory_bias is not None
            with jax.named_scope("cross_attention"):
                y = self.cross_attention(self.cross_norm(x), memory, memory_bias, key=cross_weights_key)
                x = self.add(x, y, cross_key)
        x, stats = self.feed_forward(x, info, ff_key, phase)
        return shard(x, "batch", "length", "embed"), stats


class Stack(nnx.Module):
    """The layers of an encoder or a decoder, with a final norm."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, rngs: nnx.Rngs):
        layers = config.decoder_layers if decoder else config.encoder_layers
        moe = config.moe
        every = moe.every if moe else 1

        def made(count: int, rngs: nnx.Rngs) -> nnx.List[Layer]:
            sparse = [moe is not None and i == moe.sparse_layer for i in range(count)]
            return nnx.List([Layer(config, dtype, decoder, s, rngs) for s in sparse])

        self.layers, self.every, self.count, self.remat = layers, every, layers // every, config.remat
        self.blocks = _stacked(lambda rngs: made(every, rngs), self.count, rngs) if self.count else nnx.List([])
        self.rest = made(layers % every, rngs)
        self.norm = make_norm(config)
        self.positions = position_bias(config, decoder, rngs)
        self.gating_dropout = moe.gating_dropout if moe else 0.0

    def layer(self, index: int) -> Layer:
        """Return one layer by itself, with its own parameters: for unrolled use, as in decoding."""
        block, place = divmod(index, self.every)
        if block == self.count:
            return self.rest[place]
        graph, state = nnx.split(self.blocks)
        return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[block], state))[place]

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        info: TokenInfo,
        memory: jax.Array | None = None,
        memory_bias: jax.Array | None = None,
        key: jax.Array | None = None,
        phase: Phase = Phase.INFER,
    ) -> tuple[jax.Array, Statistics]:
        """Transform x [B,S,M] to float32; the statistics have a leading axis over the sparse layers, or are None."""
        bias = self.positions.add(bias, info.position, info.position)
        info = toss(info, self.gating_dropout, key, phase)
        found = []

        def through(layers: nnx.List[Layer], x: jax.Array, index: jax.Array | int) -> tuple[jax.Array, Statistics]:
            block_key = None if key is None else jax.random.fold_in(key, index)
            statistics = None
            for layer, layer_key in zip(layers, split_key(block_key, len(layers)), strict=True):
                x, stats = layer(x, bias, info, memory, memory_bias, layer_key, phase)
                statistics = stats or statistics
            return x, statistics

        if self.count:
            graph, state = nnx.split(self.blocks)
            run = remat.block(self.remat, lambda x, step: through(nnx.merge(graph, in_use(step[0])), x, step[1]))
            x, stats = jax.lax.scan(run, x, (state, jnp.arange(self.count)))
            found.append(stats)
        if self.rest:
            graph, state = nnx.split(self.rest)
            run = remat.block(self.remat, lambda x, step: through(nnx.merge(graph, step), x, self.count), unrolled=True)
            x, stats = run(x, state)
            found.append(jax.tree.map(lambda leaf: leaf[None], stats))
        found = [stats for stats in found if stats is not None]
        stats = jax.tree.map(lambda *parts: jnp.concatenate(parts), *found) if found else None
        return self.norm(x.astype(jnp.float32)), stats


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
