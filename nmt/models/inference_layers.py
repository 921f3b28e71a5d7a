"""Layers for inference: their products through matrices of a precision, everything else in float32.

What a token becomes is the same bit for bit whatever other rows are computed with it, as far as the processor's sums
are: see `nmt.models.weight_matrix`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from nmt.models.activations import activate
from nmt.models.attention import Attention
from nmt.models.layers import FeedForward
from nmt.models.moe.layer import MoE
from nmt.models.norms import Norm
from nmt.models.numerics import contract
from nmt.models.positions import rotate
from nmt.models.precision import Precision
from nmt.models.stack import Layer
from nmt.models.tokens import TokenInfo
from nmt.models.weight_matrix import WeightMatrix, mean_last, multiply, sum_last, weight_matrix
from nmt.sharding import shard


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """A product with a matrix, and a bias."""

    matrix: WeightMatrix  # [O,I]
    bias: Float32[Array, " O"] | None

    def __call__(self, x: Float[Array, "*any I"]) -> Float32[Array, "*any O"]:
        """Project x [...,I] to [...,O]."""
        y = multiply(x, self.matrix)
        return y if self.bias is None else y + self.bias


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DenseSublayer:
    """A dense feed-forward layer."""

    inner: Projection  # [H,M]
    gate: Projection | None  # [H,M]
    outer: Projection  # [M,H]
    activation: str = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "*any M"]) -> Float32[Array, "*any M"]:
        """Transform x [...,M]."""
        gate = None if self.gate is None else self.gate(x)
        return self.outer(activate(self.activation, self.inner(x), gate))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EncoderLayer:
    """Self-attention and feed-forward layers, each pre-normed with a residual."""

    self_norm: Norm
    self_in: Projection  # [3*A*D,M]: query, key, value
    self_out: Projection  # [M,A*D]
    experts: tuple[Norm, MoE] | None  # before the dense layer, where there are both
    dense: tuple[Norm, DenseSublayer] | None
    heads: int = field(metadata={"static": True})  # A
    rotary: bool = field(metadata={"static": True})  # whether queries and keys are rotated by their positions

    def rotate(self, x: Float[Array, "B T A D"], position: Int[Array, "B T"]) -> Float[Array, "B T A D"]:
        """Return queries or keys of self-attention [B,T,A,D], rotated by their positions where attention is rotary."""
        return rotate(x, position) if self.rotary else x

    def self_queries_keys_values(
        self, x: Float[Array, "B T M"], position: Int[Array, "B T"]
    ) -> tuple[Float[Array, "B T A D"], Float[Array, "B T A D"], Float[Array, "B T A D"]]:
        """Return queries, keys and values of self-attention, each [B,T,A,D], for hidden states [B,T,M]."""
        projected = self.self_in(apply_norm(self.self_norm, x)).reshape(*x.shape[:2], 3, self.heads, -1)
        q, k = (self.rotate(projected[:, :, index], position) for index in (0, 1))
        return q, k, projected[:, :, 2]

    def feed_forward(self, x: Float[Array, "B T M"], info: TokenInfo) -> Float[Array, "B T M"]:
        """Return x [B,T,M] after the feed-forward layers."""
        if self.experts is not None:
            norm, experts = self.experts
            with jax.named_scope("moe"):
                y, _ = experts(apply_norm(norm, x), info)
                x = add_residual(x, y)
        if self.dense is not None:
            norm, dense = self.dense
            with jax.named_scope("feed_forward"):
                x = add_residual(x, dense(apply_norm(norm, x)))
        return shard(x, "batch", "length", "embed")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderLayer(EncoderLayer):
    """A layer that attends to encoded sources, too, after itself."""

    cross_norm: Norm
    cross_in: Projection  # [A*D,M]: query
    cross_cells: Projection  # [2*A*D,M]: key, value
    cross_out: Projection  # [M,A*D]

    def cross_queries(self, x: Float[Array, "B T M"]) -> Float[Array, "B T A D"]:
        """Return queries [B,T,A,D] of the attention to sources for hidden states [B,T,M]."""
        return self.cross_in(apply_norm(self.cross_norm, x)).reshape(*x.shape[:2], self.heads, -1)

    def cross_keys_values(
        self, hidden: Float[Array, "B S M"], dtype: jnp.dtype
    ) -> tuple[Float[Array, "B A D S"], Float[Array, "B A S D"]]:
        """Return encoded sources [B,S,M] as cells of the attention to them; see `lay_out_cells`."""
        projected = self.cross_cells(hidden).reshape(*hidden.shape[:2], 2, self.heads, -1)
        return lay_out_cells(projected[:, :, 0], projected[:, :, 1], dtype)


def apply_norm(norm: Norm, x: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
    """Return x [B,T,M] normalised, by means that do not depend on the number of rows."""
    return norm(x, mean_last)


def add_residual(x: Float[Array, "B T M"], y: Float[Array, "B T M"]) -> Float[Array, "B T M"]:
    """Return the residual x plus the output y of a sublayer, in the type of x."""
    return (x + y).astype(x.dtype)


def lay_out_cells(
    k: Float[Array, "B S A D"], v: Float[Array, "B S A D"], dtype: jnp.dtype
) -> tuple[Float[Array, "B A D S"], Float[Array, "B A S D"]]:
    """Lay out keys and values [B,S,A,D] as cells [B,A,D,S] and [B,A,S,D] of a type."""
    keys, values = k.transpose(0, 2, 3, 1).astype(dtype), v.swapaxes(1, 2).astype(dtype)
    return shard(keys, "batch", "heads", None, None), shard(values, "batch", "heads", None, None)


def attend_cells(
    q: Float[Array, "B W A D"],
    keys: Float[Array, "B A D S"],
    values: Float[Array, "B A S D"],
    bias: Float[Array, "#B #A #W S"],
) -> Float32[Array, "B W A*D"]:
    """Attend from queries [B,W,A,D] to S cells under a bias that broadcasts to [B,A,W,S]; return [B,W,A*D].

    Products take the type of the cells, and what they add up to is float32.
    """
    weights = _unscaled_attention(q, keys, bias)
    y = contract("baws,basd->bawd", weights, values, values.dtype) / sum_last(weights)[..., None]
    return y.swapaxes(1, 2).reshape(*q.shape[:2], -1)


def mean_attention(
    q: Float[Array, "B W A D"], keys: Float[Array, "B A D S"], bias: Float[Array, "#B #A #W S"]
) -> Float32[Array, "B W S"]:
    """Return the weights of attention from queries [B,W,A,D] to S cells, the mean over the heads."""
    weights = _unscaled_attention(q, keys, bias)
    return (weights / sum_last(weights)[..., None]).mean(axis=1)


def _unscaled_attention(
    q: Float[Array, "B W A D"], keys: Float[Array, "B A D S"], bias: Float[Array, "#B #A #W S"]
) -> Float32[Array, "B A W S"]:
    """Return the weights of attention before they are divided by their sums."""
    logits = contract("bawd,bads->baws", q.swapaxes(1, 2) * q.shape[-1] ** -0.5, keys, keys.dtype) + bias
    return jnp.exp(logits - logits.max(axis=-1, keepdims=True))


def encoder_layer(layer: Layer, precision: Precision) -> EncoderLayer:
    """Return a layer of an encoder for inference; call it jitted, as the next function."""
    return EncoderLayer(*_common_parts(layer, precision))


def decoder_layer(layer: Layer, precision: Precision) -> DecoderLayer:
    """Return a layer of a decoder for inference."""
    if layer.sparse:
        layer.moe.separate_experts(precision)
    cross = layer.cross_attention
    return DecoderLayer(
        *_common_parts(layer, precision),
        cross_norm=layer.cross_norm,
        cross_in=_input_projection((cross.wq,), (cross.bq,), precision),
        cross_cells=_input_projection((cross.wkv,), (cross.bkv,), precision),
        cross_out=_output_projection(cross, precision),
    )


def _common_parts(
    layer: Layer, precision: Precision
) -> tuple[Norm, Projection, Projection, tuple[Norm, MoE] | None, tuple[Norm, DenseSublayer] | None, int, bool]:
    own = layer.self_attention
    dense = None
    if not layer.sparse or layer.has_extra:
        norm, sublayer = (layer.extra_norm, layer.extra) if layer.sparse else (layer.ff_norm, layer.ff)
        dense = (norm, _dense_sublayer(sublayer, precision))
    return (
        layer.self_norm,
        _input_projection((own.wq, own.wkv), (own.bq, own.bkv), precision),
        _output_projection(own, precision),
        (layer.ff_norm, layer.moe) if layer.sparse else None,
        dense,
        own.wq[...].shape[1],
        own.rotary,
    )


def _input_projection(
    weights: Sequence[nnx.Param[jax.Array]], biases: Sequence[nnx.Param[jax.Array] | None], precision: Precision
) -> Projection:
    """Return weights [M,...,A,D] of attention as one projection from M."""
    width = weights[0][...].shape[0]
    joined = jnp.concatenate([w[...].reshape(width, -1) for w in weights], axis=1)
    flat = [b[...].reshape(-1) for b in biases if b is not None]
    return Projection(weight_matrix(joined.T, precision), jnp.concatenate(flat) if flat else None)


def _output_projection(attention: Attention, precision: Precision) -> Projection:
    weight = attention.wo[...].reshape(-1, attention.wo[...].shape[-1])
    return Projection(weight_matrix(weight.T, precision), None if attention.bo is None else attention.bo[...])


def _dense_sublayer(layer: FeedForward, precision: Precision) -> DenseSublayer:
    def projection(weight: nnx.Param[jax.Array], bias: nnx.Param[jax.Array] | None) -> Projection:
        return Projection(weight_matrix(weight[...].T, precision), None if bias is None else bias[...])

    gate = None if layer.wg is None else projection(layer.wg, layer.bg)
    return DenseSublayer(projection(layer.wi, layer.bi), gate, projection(layer.wo, layer.bo), layer.activation)
