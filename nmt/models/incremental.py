"""One decoding step from caches: the decoder unrolled, its weights in the compute type, keys and values kept.

Hypotheses never move. Cell (t, k) of a cache holds the key and value of what hypothesis k read at step t, and a table
of ancestors says which cells belong to whom: when hypotheses are exchanged only that small table is, and the K
hypotheses of a sentence attend to their common cells in one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.models.attention import MASKED, Attention, attention_bias
from nmt.models.embedding import embedding_factor, output_factor
from nmt.models.norms import Norm
from nmt.models.numerics import contract, product
from nmt.models.positions import AddedPositions, PositionBias
from nmt.models.stack import Layer, Stack
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.transformer import Transformer
from nmt.sharding import platform, shard

PRODUCT_WEIGHTS = {"wq", "wkv", "wo", "wi", "wg"}  # what only `product` reads, and rounds to the compute type anyway


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """Weights of attention as one matrix, so that no step transposes them."""

    weight: jax.Array  # compute type [I,O]
    bias: jax.Array | None  # float32 [O]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Project x [B,K,I] to [B,K,O]."""
        y = _multiply(x, self.weight)
        return y if self.bias is None else y + self.bias


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderLayer:
    """One decoder layer for inference; the layer itself has the norms and the feed-forward layers."""

    layer: Layer
    self_in: Projection  # M -> 3*A*D: query, key, value
    self_out: Projection  # A*D -> M
    cross_in: Projection  # M -> A*D: query
    cross_out: Projection  # A*D -> M


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InferenceModel:
    """A model's weights for inference: decoder layers one by one, inputs of products already in the compute type."""

    tables: tuple[jax.Array, ...]  # type of parameters [V,M]: embeddings of sources and of targets, or one for both
    output: jax.Array  # compute type [V',M], zero rows from V on
    positions: AddedPositions  # of embeddings
    encoder: Stack
    layers: list[DecoderLayer]
    target_positions: PositionBias  # of the decoder's self-attention
    norm: Norm
    embedding_factor: float = field(metadata={"static": True})
    output_factor: float = field(metadata={"static": True})
    hidden_dtype: jnp.dtype = field(metadata={"static": True})  # type of hidden states between layers

    @property
    def vocabulary(self) -> int:
        """The number of target ids (V)."""
        return self.tables[-1].shape[0]

    def hidden(self, x: jax.Array) -> jax.Array:
        """Return what the output layer reads, float32, for the last layer's hidden states."""
        return self.norm(x.astype(jnp.float32)) * self.output_factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Encoded:
    """Encoded sources."""

    hidden: jax.Array  # float32 [`B,S,M]
    segment: jax.Array  # int32 [B,S], 0 where padding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """What decoding reads of the encoded sources, per layer."""

    keys: list[jax.Array]  # cache type [`B,A,D,S]
    values: list[jax.Array]  # cache type [`B,A,S,D]
    bias: jax.Array  # float32 [B,1,1,S], 0 or `MASKED`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of what was decoded, per layer; cell (t, k) is at t*K + k."""

    keys: list[jax.Array]  # cache type [`B,A,D,T*K]
    values: list[jax.Array]  # cache type [`B,A,T*K,D]


def cache_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the type of caches: the compute type, but on CPUs float32.

    XLA:CPU updates a bfloat16 array by converting the whole of it to float32 and back.
    """
    return jnp.dtype(jnp.float32) if platform() == "cpu" else dtype


def inference_model(model: Transformer, multiple: int = 1) -> InferenceModel:
    """Return the weights of a model as decoding wants them; call it once, jitted.

    Args:
      model: the model.
      multiple: V' is the next multiple of this.
    """

    def cast(path: tuple[Any, ...], weight: jax.Array) -> jax.Array:
        return weight.astype(model.dtype) if path[-2].name in PRODUCT_WEIGHTS else weight

    encoder, decoder = jax.tree_util.tree_map_with_path(cast, (model.encoder, model.decoder))
    output = model.output_table.astype(model.dtype)
    separate = model.config.embeddings == "separate"
    return InferenceModel(
        tables=(model.source_table, model.target_table) if separate else (model.target_table,),
        output=jnp.pad(output, ((0, -output.shape[0] % multiple), (0, 0))),
        positions=model.positions,
        encoder=encoder,
        layers=[_decoder_layer(decoder.layer(i)) for i in range(decoder.layers)],
        target_positions=decoder.positions,
        norm=decoder.norm,
        embedding_factor=embedding_factor(model.config),
        output_factor=output_factor(model.config),
        hidden_dtype=jnp.dtype(model.config.activation_dtype),
    )


def _decoder_layer(layer: Layer) -> DecoderLayer:
    own, cross = layer.self_attention, layer.cross_attention
    width = own.wq[...].shape[0]

    def into(weights: Sequence[nnx.Param[jax.Array]], biases: Sequence[nnx.Param[jax.Array] | None]) -> Projection:
        weight = jnp.concatenate([w[...].reshape(width, -1) for w in weights], axis=1)
        flat = [b[...].reshape(-1) for b in biases if b is not None]
        return Projection(weight, jnp.concatenate(flat) if flat else None)

    def out_of(attention: Attention) -> Projection:
        bias = None if attention.bo is None else attention.bo[...]
        return Projection(attention.wo[...].reshape(-1, width), bias)

    self_in = into((own.wq, own.wkv), (own.bq, own.bkv))
    return DecoderLayer(layer, self_in, out_of(own), into((cross.wq,), (cross.bq,)), out_of(cross))


def _embed(model: InferenceModel, tokens: jax.Array, position: jax.Array, longest: int, decoder: bool) -> jax.Array:
    x = model.tables[-1 if decoder else 0][tokens].astype(jnp.float32) * model.embedding_factor
    x = model.positions.add(x, position, longest).astype(model.hidden_dtype)
    return shard(x, "batch", "length", "embed")


def _rows(tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return positions and segments [B,S] of rows that hold one sequence each, of lengths [B]."""
    position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return position, (position < length[:, None]).astype(jnp.int32)


def encode(model: InferenceModel, source: jax.Array, length: jax.Array) -> Encoded:
    """Encode sources, int32 [B,S], one a row, of lengths [B]; the rest of a row is padding."""
    position, segment = _rows(source, length)
    with jax.named_scope("encoder"):
        x = _embed(model, source, position, source.shape[1], decoder=False)
        info = TokenInfo(source, segment > 0, position=position)
        hidden, _ = model.encoder(x, attention_bias(segment, segment), info)
    return Encoded(hidden, segment)


def log_probabilities(model: InferenceModel, encoded: Encoded, target: jax.Array, length: jax.Array) -> jax.Array:
    """Return log p(target[t] | target[:t], source), float32 [B,T-1] for t from 1 on, by reading all of it at once.

    Args:
      model: the model.
      encoded: the sources.
      target: int32 [B,T], from the begin token to the end token, one a row.
      length: int32 [B], tokens of each target; 0 is returned for what is beyond.
    """
    tokens = target[:, :-1]
    position, segment = _rows(tokens, length - 1)
    x = _embed(model, tokens, position, tokens.shape[1], decoder=True)
    own = model.target_positions.add(attention_bias(segment, segment, causal=True), position, position)
    info = TokenInfo(tokens, segment > 0, position=position)
    cross = attention_bias(jnp.ones_like(segment), encoded.segment)
    for weights in model.layers:
        x, _ = weights.layer(x, own, info, encoded.hidden, cross, None, Phase.INFER)
    logits = _multiply(model.hidden(x), model.output.T)[..., : model.vocabulary]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), target[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(segment > 0, chosen, 0.0)


def memory_of(model: InferenceModel, encoded: Encoded) -> Memory:
    """Project encoded sources to the keys and values of every layer."""
    dtype = cache_dtype(model.output.dtype)
    cells = [_cells(*layer.layer.cross_attention.keys_values(encoded.hidden), dtype) for layer in model.layers]
    bias = jnp.where(encoded.segment > 0, 0.0, MASKED)[:, None, None]
    return Memory([keys for keys, _ in cells], [values for _, values in cells], bias)


def _cells(k: jax.Array, v: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Lay out keys and values [B,N,A,D] as cells [B,A,D,N] and [B,A,N,D] of a type."""
    keys, values = k.transpose(0, 2, 3, 1).astype(dtype), v.swapaxes(1, 2).astype(dtype)
    return shard(keys, "batch", "heads", None, None), shard(values, "batch", "heads", None, None)


def empty_cache(model: InferenceModel, rows: int, beam: int, steps: int) -> Cache:
    """Return a cache for so many rows (B), hypotheses a row (K) and steps (T)."""
    heads, width = model.layers[0].layer.self_attention.wq[...].shape[1:]
    keys = jnp.zeros((rows, heads, width, steps * beam), cache_dtype(model.output.dtype))
    keys = shard(keys, "batch", "heads", None, None)
    return Cache([keys for _ in model.layers], [keys.swapaxes(2, 3) for _ in model.layers])


def _attend(q: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array) -> jax.Array:
    """Attend from queries [B,K,A,D] to N cells under a bias that broadcasts to [B,A,K,N]; return [B,K,A*D]."""
    logits = contract("bakd,badn->bakn", q.swapaxes(1, 2) * q.shape[-1] ** -0.5, keys, keys.dtype) + bias
    y = contract("bakn,band->bakd", jax.nn.softmax(logits, axis=-1), values, values.dtype)
    return y.swapaxes(1, 2).reshape(*q.shape[:2], -1)


def _multiply(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return x [B,K,I] times a matrix [I,O]."""
    rows = x.reshape(-1, x.shape[-1])
    return product("ni,io->no", rows, weight, weight.dtype).reshape(*x.shape[:-1], -1)


def ancestry_bias(ancestor: jax.Array, step: jax.Array) -> jax.Array:
    """Return the bias [B,1,K,T*K] that shows a hypothesis its own cells up to a step.

    Args:
      ancestor: int32 [B,K,T]: cell (t, ancestor[b,k,t]) is on the path of hypothesis k.
      step: int32 [], the newest step.
    """
    rows, beam, steps = ancestor.shape
    own = ancestor[..., None] == jnp.arange(beam)
    own &= (jnp.arange(steps) <= step)[:, None]
    return jnp.where(own, 0.0, MASKED).reshape(rows, 1, beam, steps * beam)


def decode_step(
    model: InferenceModel,
    tokens: jax.Array,
    step: jax.Array,
    live: jax.Array,
    ancestor: jax.Array,
    memory: Memory,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    """Read one token of every hypothesis.

    Args:
      model: the model.
      tokens: int32 [B,K].
      step: int32 [], their position.
      live: bool [B,K]; hypotheses that are not get meaningless numbers and no experts.
      ancestor: int32 [B,K,T], see `ancestry_bias`; at `step` every hypothesis has its own cell.
      memory: the sources.
      cache: what was read so far.

    Returns:
      Logits, float32 [B,K,V'], meaningless from V on, and the cache with the new cells.
    """
    rows, beam, steps = ancestor.shape
    position = jnp.broadcast_to(step, tokens.shape)
    x = _embed(model, tokens, position, steps, decoder=True)
    cell_position = jnp.repeat(jnp.arange(steps), beam)[None]
    bias = model.target_positions.add(ancestry_bias(ancestor, step), position[:1], cell_position)
    info = TokenInfo(tokens, live, position=position)
    all_keys, all_values = [], []
    for i, weights in enumerate(model.layers):
        layer, own = weights.layer, weights.layer.self_attention
        heads, width = own.wq[...].shape[1:]
        with jax.named_scope("self_attention"):
            qkv = weights.self_in(layer.self_norm(x)).reshape(rows, beam, 3, heads, width)
            q, k = (own.turn(qkv[:, :, part], position) for part in (0, 1))
            new_keys, new_values = _cells(k, qkv[:, :, 2], cache.keys[i].dtype)
            keys = jax.lax.dynamic_update_slice(cache.keys[i], new_keys, (0, 0, 0, step * beam))
            values = jax.lax.dynamic_update_slice(cache.values[i], new_values, (0, 0, step * beam, 0))
            x = layer.add(x, weights.self_out(_attend(q, keys, values, bias)))
        with jax.named_scope("cross_attention"):
            q = weights.cross_in(layer.cross_norm(x)).reshape(rows, beam, heads, width)
            x = layer.add(x, weights.cross_out(_attend(q, memory.keys[i], memory.values[i], memory.bias)))
        x, _ = layer.feed_forward(x, info)
        x = shard(x, "batch", "length", "embed")
        all_keys.append(keys)
        all_values.append(values)
    logits = product("bkm,vm->bkv", model.hidden(x), model.output, model.output.dtype)
    return logits, Cache(all_keys, all_values)
