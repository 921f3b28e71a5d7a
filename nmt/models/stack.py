"""The layers of the Transformer: pre-norm, experts in every n-th, scanned in repeating blocks.

A block is `moe.every` layers, one of them sparse. The blocks of a stack share one structure, so they are one block
whose parameters carry a leading `layers` axis, and compile time does not grow with depth. Layers that are too few for
another block come after the scan, one by one.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from nmt.config import ModelConfig
from nmt.models import remat
from nmt.models.attention import Attention
from nmt.models.buffers import Buffer
from nmt.models.layers import FeedForward, gather_parameters
from nmt.models.moe.layer import ExpertOptions, MoE
from nmt.models.moe.regularise import toss
from nmt.models.moe.statistics import RoutingStats
from nmt.models.norms import make_norm
from nmt.models.numerics import dropout, split_key
from nmt.models.positions import position_bias
from nmt.models.tokens import Phase, TokenInfo
from nmt.sharding import shard

Statistics = RoutingStats | None
Carry = TypeVar("Carry")

_unrolled = contextvars.ContextVar("unrolled", default=False)


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """Write the scanned layers out, one after another, in whatever is traced within: for debugging.

    Programs that were compiled before keep their scan.
    """
    token = _unrolled.set(True)
    try:
        yield
    finally:
        _unrolled.reset(token)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CrossMemory:
    """The encoded source that a decoder's cross-attention reads."""

    hidden: Float[Array, "B S M"]
    bias: Float[Array, "B 1 #T S"]  # 0, or `MASKED` where a target may not attend


class Layer(nnx.Module):
    """Self-attention, in a decoder cross-attention, and a feed-forward layer, each pre-normed with a residual.

    Where ST-MoE's `extra_dense` is on, a dense feed-forward layer follows the sparse one (arXiv:2202.08906, section 5).
    """

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, sparse: bool, rngs: nnx.Rngs):
        self.self_norm = make_norm(config)
        self.self_attention = Attention(config, dtype, rngs, config.positions == "rotary")
        if decoder:
            self.cross_norm, self.cross_attention = make_norm(config), Attention(config, dtype, rngs)
        self.ff_norm = make_norm(config)
        if sparse:
            assert config.moe is not None
            options = ExpertOptions.from_config(config)
            self.moe = MoE(config.width, config.hidden, config.moe, dtype, rngs, decoder, options)
            if config.moe.extra_dense:
                self.extra_norm, self.extra = make_norm(config), FeedForward(config, dtype, rngs)
        else:
            self.ff = FeedForward(config, dtype, rngs)
        self.sparse, self.has_extra = sparse, sparse and hasattr(self, "extra")
        self.decoder, self.rate, self.remat = decoder, config.dropout, config.remat

    def feed_forward(
        self, x: Float[Array, "B T M"], info: TokenInfo, key: PRNGKeyArray | None = None, phase: Phase = Phase.INFER
    ) -> tuple[Float[Array, "B T M"], Statistics]:
        """Return x [B,T,M] after the feed-forward layers, and routing statistics of a sparse layer."""
        inner_key, drop_key, extra_key, extra_drop_key = split_key(key, 4)
        with jax.named_scope("moe" if self.sparse else "feed_forward"):
            y, stats = self.ff_norm(x), None
            if self.sparse:
                run = remat.wrap_experts(self.remat, lambda y, info, key: self.moe(y, info, key, phase))
                y, stats = run(y, info, inner_key)
            else:
                y = self.ff(y, inner_key)
            x = self.add(x, y, drop_key)
            if self.has_extra:
                x = self.add(x, self.extra(self.extra_norm(x), extra_key), extra_drop_key)
        return x, stats

    def add(
        self, x: Float[Array, "B T M"], y: Float[Array, "B T M"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "B T M"]:
        """Return the residual x [B,T,M] plus the output y [B,T,M] of a sublayer, dropped out, in the type of x."""
        return (x + dropout(y, self.rate, key)).astype(x.dtype)

    def __call__(
        self,
        x: Float[Array, "B T M"],
        bias: Float[Array, "#B #A #T #T"],
        info: TokenInfo,
        memory: CrossMemory | None,
        key: PRNGKeyArray | None,
        phase: Phase,
    ) -> tuple[Float[Array, "B T M"], Statistics]:
        """Transform x.

        Args:
          x: hidden states [B,T,M].
          bias: of self-attention, [B,1,T,T] or [B,A,T,T].
          info: the tokens.
          memory: the encoded source in a decoder, None in an encoder.
          key: random key of dropout and routing; None turns both off.
          phase: see `Phase`.

        Returns:
          [B,T,M], and routing statistics of a sparse layer.
        """
        self_key, cross_key, ff_key, self_weights_key, cross_weights_key = split_key(key, 5)
        with jax.named_scope("self_attention"):
            y = self.self_norm(x)
            x = self.add(x, self.self_attention(y, y, bias, info.position, self_weights_key), self_key)
        if self.decoder:
            assert memory is not None
            with jax.named_scope("cross_attention"):
                y = self.cross_attention(self.cross_norm(x), memory.hidden, memory.bias, key=cross_weights_key)
                x = self.add(x, y, cross_key)
        x, stats = self.feed_forward(x, info, ff_key, phase)
        return shard(x, "batch", "length", "embed"), stats


class Stack(nnx.Module):
    """The layers of an encoder or a decoder, with a final norm."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, decoder: bool, rngs: nnx.Rngs):
        layers = config.decoder_layers if decoder else config.encoder_layers
        moe = config.moe
        every = moe.every if moe else 1

        def make(count: int, rngs: nnx.Rngs) -> nnx.List[Layer]:
            sparse = moe.sparse_layers(count) if moe else ()
            return nnx.List([Layer(config, dtype, decoder, i in sparse, rngs) for i in range(count)])

        self.layers, self.every, self.count, self.remat = layers, every, layers // every, config.remat
        self.blocks = _stacked(lambda rngs: make(every, rngs), self.count, rngs) if self.count else nnx.List([])
        self.rest = make(layers % every, rngs)
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
        x: Float[Array, "B T M"],
        bias: Float[Array, "#B 1 #T #T"],
        info: TokenInfo,
        memory: CrossMemory | None = None,
        key: PRNGKeyArray | None = None,
        phase: Phase = Phase.INFER,
    ) -> tuple[Float32[Array, "B T M"], Statistics]:
        """Transform x by all layers and the final norm; see `Layer` for the arguments.

        Returns:
          [B,T,M], and routing statistics with a leading axis over the sparse layers (Y); None without such layers.
        """
        bias = self.positions.add(bias, info.position, info.position)
        info = toss(info, self.gating_dropout, key, phase)
        found = []

        def run_layers(layers: nnx.List[Layer], x: jax.Array, index: jax.Array | int) -> tuple[jax.Array, Statistics]:
            block_key = None if key is None else jax.random.fold_in(key, index)
            statistics = None
            for layer, layer_key in zip(layers, split_key(block_key, len(layers)), strict=True):
                x, stats = layer(x, bias, info, memory, layer_key, phase)
                statistics = stats or statistics
            return x, statistics

        if self.count:
            graph, state = nnx.split(self.blocks)

            def run_block(x: jax.Array, block: tuple[nnx.State, jax.Array]) -> tuple[jax.Array, Statistics]:
                parameters, index = block
                return run_layers(nnx.merge(graph, gather_parameters(parameters)), x, index)

            run = remat.wrap_block(self.remat, run_block, unrolled=_unrolled.get())
            x, stats = _scan(run, x, (state, jnp.arange(self.count)), self.count)
            found.append(stats)
        if self.rest:
            graph, state = nnx.split(self.rest)

            def run_rest(x: jax.Array, parameters: nnx.State) -> tuple[jax.Array, Statistics]:
                return run_layers(nnx.merge(graph, parameters), x, self.count)

            x, stats = remat.wrap_block(self.remat, run_rest, unrolled=True)(x, state)
            found.append(jax.tree.map(lambda leaf: leaf[None], stats))
        found = [stats for stats in found if stats is not None]
        stats = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found) if found else None
        return self.norm(x.astype(jnp.float32)), stats

    def update_buffers(self, stats: RoutingStats) -> None:
        """Move the buffers of the layers by the statistics [Y,...] of a whole batch, Y sparse layers."""
        number = 0
        for layer in self.blocks:
            if layer.sparse:
                layer.moe.update_buffers(jax.tree.map(lambda leaf: leaf[: self.count], stats))
                number = self.count
        for layer in self.rest:
            if layer.sparse:
                layer.moe.update_buffers(jax.tree.map(lambda leaf, n=number: leaf[n], stats))
                number += 1


def _scan(run: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, inputs: Any, count: int) -> tuple[Carry, Any]:
    """Run a function over the leading axis of inputs, as `jax.lax.scan` does, or as a loop in Python if `unrolled`."""
    if not _unrolled.get():
        return jax.lax.scan(run, carry, inputs)
    outputs = []
    for index in range(count):
        carry, output = run(carry, jax.tree.map(lambda leaf: leaf[index], inputs))  # noqa: B023, called at once
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def _stacked(make: Callable[[nnx.Rngs], nnx.List[Layer]], count: int, rngs: nnx.Rngs) -> nnx.List[Layer]:
    """Return one block whose every parameter has a leading axis `layers` over so many independent draws."""

    @nnx.split_rngs(splits=count)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> nnx.List[Layer]:
        return make(rngs)

    blocks = create(rngs)
    for _, node in nnx.iter_graph(blocks):
        if isinstance(node, nnx.Param | Buffer):
            node.set_metadata(logical_axes=("layers", *node.get_metadata()["logical_axes"]))
    return blocks
