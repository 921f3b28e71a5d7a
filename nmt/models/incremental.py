"""One decoding step from caches: the decoder unrolled, its weights in the compute type, keys and values kept.

Hypotheses never move. Cell (t, k) of a cache holds the key and value of what hypothesis k read at step t, and a table
of ancestors says which cells belong to whom: when hypotheses are exchanged only that small table is, and the K
hypotheses of a sentence attend to their common cells in one product.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from nmt.models.attention import MASKED, attention_bias
from nmt.models.embedding import embedding_factor, output_factor
from nmt.models.layers import RMSNorm, sinusoids
from nmt.models.numerics import product
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.transformer import Layer, Stack, Transformer
from nmt.sharding import shard

PRODUCT_WEIGHTS = {"wq", "wkv", "wo", "wi"}  # what only `product` reads, and rounds to the compute type anyway


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderLayer:
    """One decoder layer for inference: the attention's weights as matrices, so that no step transposes them."""

    layer: Layer
    self_in: jax.Array  # compute type [M,3*A*D]: query, key, value
    self_out: jax.Array  # compute type [A*D,M]
    cross_in: jax.Array  # compute type [M,A*D]: query
    cross_out: jax.Array  # compute type [A*D,M]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InferenceModel:
    """A model's weights for inference: decoder layers one by one, inputs of products already in the compute type."""

    tables: tuple[jax.Array, ...]  # float32 [V,M]: embeddings of sources and of targets, or one for both
    output: jax.Array  # compute type [V',M], zero rows from V on
    encoder: Stack
    layers: list[DecoderLayer]
    norm: RMSNorm
    embedding_factor: float = field(metadata={"static": True})
    output_factor: float = field(metadata={"static": True})

    @property
    def vocabulary(self) -> int:
        """The number of target ids (V)."""
        return self.tables[-1].shape[0]


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
    return jnp.dtype(jnp.float32) if jax.default_backend() == "cpu" else dtype


def inference_model(model: Transformer, multiple: int = 1) -> InferenceModel:
    """Return the weights of a model as decoding wants them; call it once, jitted.

    Args:
      model: the model.
      multiple: V' is the next multiple of this.
    """

    def cast(path: tuple[Any, ...], weight: jax.Array) -> jax.Array:
        return weight.astype(model.dtype) if path[-2].name in PRODUCT_WEIGHTS else weight

    encoder, decoder = jax.tree_util.tree_map_with_path(cast, (model.encoder, model.decoder))
    layers = [_decoder_layer(decoder.layer(i)) for i in range(decoder.count * decoder.every)]
    output = model.output_table.astype(model.dtype)
    separate = model.config.embeddings == "separate"
    return InferenceModel(
        (model.source_table, model.target_table) if separate else (model.target_table,),
        jnp.pad(output, ((0, -output.shape[0] % multiple), (0, 0))),
        encoder,
        layers,
        decoder.norm,
        embedding_factor(model.config),
        output_factor(model.config),
    )


def _decoder_layer(layer: Layer) -> DecoderLayer:
    own, cross = layer.self_attention, layer.cross_attention
    width = own.wq[...].shape[0]
    self_in = jnp.concatenate([w[...].reshape(width, -1) for w in (own.wq, own.wkv)], axis=1)
    self_out, cross_out = (w[...].reshape(-1, width) for w in (own.wo, cross.wo))
    return DecoderLayer(layer, self_in, self_out, cross.wq[...].reshape(width, -1), cross_out)


def _embed(model: InferenceModel, tokens: jax.Array, position: jax.Array, longest: int, decoder: bool) -> jax.Array:
    table = model.tables[-1 if decoder else 0]
    width = table.shape[1]
    x = table[tokens] * model.embedding_factor + jnp.asarray(sinusoids(longest, width))[position]
    return shard(x, "batch", "length", "embed")


def _rows(tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return positions and segments [B,S] of rows that hold one sequence each, of lengths [B]."""
    position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return position, (position < length[:, None]).astype(jnp.int32)


def encode(model: InferenceModel, source: jax.Array, length: jax.Array) -> Encoded:
    """Encode sources, int32 [B,S], one a row, of lengths [B]; the rest of a row is padding."""
    position, segment = _rows(source, length)
    x = _embed(model, source, position, source.shape[1], decoder=False)
    hidden, _ = model.encoder(x, attention_bias(segment, segment), TokenInfo(source, segment > 0))
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
    own = attention_bias(segment, segment, causal=True)
    cross = attention_bias(jnp.ones_like(segment), encoded.segment)
    for weights in model.layers:
        x, _ = weights.layer(x, own, TokenInfo(tokens, segment > 0), encoded.hidden, cross, None, Phase.INFER)
    hidden = model.norm(x) * model.output_factor
    logits = _multiply(hidden, model.output.T)[..., : model.vocabulary]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), target[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(segment > 0, chosen, 0.0)


def memory_of(model: InferenceModel, encoded: Encoded) -> Memory:
    """Project encoded sources to the keys and values of every layer."""
    cells = [_cells(*layer.layer.cross_attention.keys_values(encoded.hidden)) for layer in model.layers]
    bias = jnp.where(encoded.segment > 0, 0.0, MASKED)[:, None, None]
    return Memory([keys for keys, _ in cells], [values for _, values in cells], bias)


def _cells(k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lay out keys and values [B,N,A,D] as cells [B,A,D,N] and [B,A,N,D]."""
    dtype = cache_dtype(k.dtype)
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
    logits = product("bakd,badn->bakn", q.swapaxes(1, 2) * q.shape[-1] ** -0.5, keys, keys.dtype) + bias
    y = product("bakn,band->bakd", jax.nn.softmax(logits, axis=-1), values, values.dtype)
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
    x = _embed(model, tokens, jnp.broadcast_to(step, tokens.shape), steps, decoder=True)
    bias = ancestry_bias(ancestor, step)
    all_keys, all_values = [], []
    for i, weights in enumerate(model.layers):
        layer = weights.layer
        heads, width = layer.self_attention.wq[...].shape[1:]
        qkv = _multiply(layer.self_norm(x), weights.self_in).reshape(rows, beam, 3, heads, width)
        new_keys, new_values = _cells(qkv[:, :, 1], qkv[:, :, 2])
        keys = jax.lax.dynamic_update_slice(cache.keys[i], new_keys, (0, 0, 0, step * beam))
        values = jax.lax.dynamic_update_slice(cache.values[i], new_values, (0, 0, step * beam, 0))
        x = x + _multiply(_attend(qkv[:, :, 0], keys, values, bias), weights.self_out)
        q = _multiply(layer.cross_norm(x), weights.cross_in).reshape(rows, beam, heads, width)
        x = x + _multiply(_attend(q, memory.keys[i], memory.values[i], memory.bias), weights.cross_out)
        y, _ = layer.feed_forward(x, TokenInfo(tokens, live))
        x = shard(x + y, "batch", "length", "embed")
        all_keys.append(keys)
        all_values.append(values)
    hidden = model.norm(x) * model.output_factor
    logits = product("bkm,vm->bkv", hidden, model.output, model.output.dtype)
    return logits, Cache(all_keys, all_values)
