"""One decoding step from caches: the decoder unrolled, its weights in the compute type, keys and values kept.

Hypotheses never move. Cell (t, w) of a cache holds the key and the value of the token that hypothesis w read at
position t, and a table of ancestors says which cells are on the path of which hypothesis. When hypotheses are exchanged
only that small table is, and the W hypotheses of a sentence attend to their common cells in one product. Every row is
at a position of its own, so that sentences that begin later can share a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from nmt.models.attention import MASKED, Attention, attention_bias
from nmt.models.embedding import embedding_factor, output_factor
from nmt.models.norms import Norm
from nmt.models.numerics import contract, product
from nmt.models.positions import AddedPositions, PositionBias
from nmt.models.stack import CrossMemory, Layer, Stack
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.transformer import Transformer
from nmt.sharding import platform, shard

PRODUCT_WEIGHTS = {"wq", "wkv", "wo", "wi", "wg"}  # read by `product` alone, which rounds to the compute type anyway


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Projection:
    """Weights of attention as one matrix, so that no step transposes them."""

    weight: Float[Array, "I O"]  # of the compute type
    bias: Float32[Array, " O"] | None

    def __call__(self, x: Float[Array, "B W I"]) -> Float32[Array, "B W O"]:
        """Project x [B,W,I] to [B,W,O]."""
        y = _multiply(x, self.weight)
        return y if self.bias is None else y + self.bias


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecoderLayer:
    """One decoder layer for inference; the layer itself has the norms and the feed-forward layers."""

    layer: Layer
    self_in: Projection  # [M,3*A*D]: query, key, value
    self_out: Projection  # [A*D,M]
    cross_in: Projection  # [M,A*D]: query
    cross_out: Projection  # [A*D,M]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InferenceModel:
    """A model's weights for inference: decoder layers one by one, inputs of products already in the compute type."""

    tables: tuple[Float[Array, "V M"], ...]  # embeddings of sources and of targets, or one for both
    output: Float[Array, "Q M"]  # of the compute type, zero rows from V on
    positions: AddedPositions  # added to embeddings
    encoder: Stack
    layers: list[DecoderLayer]
    target_positions: PositionBias  # added to the logits of the decoder's self-attention
    norm: Norm
    embedding_factor: float = field(metadata={"static": True})
    output_factor: float = field(metadata={"static": True})
    hidden_dtype: jnp.dtype = field(metadata={"static": True})  # of hidden states between layers

    @property
    def vocabulary(self) -> int:
        """The number of target ids (V)."""
        return self.tables[-1].shape[0]

    def output_input(self, x: Float[Array, "B T M"]) -> Float32[Array, "B T M"]:
        """Return the input of the output layer, float32 [B,T,M], for hidden states [B,T,M] of the last layer."""
        return self.norm(x.astype(jnp.float32)) * self.output_factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Encoded:
    """Encoded sources."""

    hidden: Float32[Array, "B S M"]
    segment: Int[Array, "B S"]  # 0 for padding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SourceCache:
    """Keys and values of the encoded sources, one array a layer, of `cache_dtype`."""

    keys: list[Float[Array, "B A D S"]]
    values: list[Float[Array, "B A S D"]]
    length: Int[Array, " B"]  # tokens of each source; cells beyond are padding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens decoded so far, one array a layer, of `cache_dtype`; cell (t, w) is at t*W + w."""

    keys: list[Float[Array, "B A D T*W"]]
    values: list[Float[Array, "B A T*W D"]]


def cache_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the type of caches: the compute type, but on CPUs float32.

    XLA:CPU updates a bfloat16 array by converting the whole of it to float32 and back.
    """
    return jnp.dtype(jnp.float32) if platform() == "cpu" else dtype


def inference_model(model: Transformer, multiple: int = 1) -> InferenceModel:
    """Return the weights of a model prepared for decoding; call it once, jitted.

    Args:
      model: the model.
      multiple: Q, the rows of `output`, is V rounded up to a multiple of this.
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
    if layer.sparse:
        layer.moe.separate_experts()
    own, cross = layer.self_attention, layer.cross_attention
    width = own.wq[...].shape[0]

    def input_projection(
        weights: Sequence[nnx.Param[jax.Array]], biases: Sequence[nnx.Param[jax.Array] | None]
    ) -> Projection:
        weight = jnp.concatenate([w[...].reshape(width, -1) for w in weights], axis=1)
        flat = [b[...].reshape(-1) for b in biases if b is not None]
        return Projection(weight, jnp.concatenate(flat) if flat else None)

    def output_projection(attention: Attention) -> Projection:
        bias = None if attention.bo is None else attention.bo[...]
        return Projection(attention.wo[...].reshape(-1, width), bias)

    return DecoderLayer(
        layer,
        self_in=input_projection((own.wq, own.wkv), (own.bq, own.bkv)),
        self_out=output_projection(own),
        cross_in=input_projection((cross.wq,), (cross.bq,)),
        cross_out=output_projection(cross),
    )


def _embed(
    model: InferenceModel, tokens: Int[Array, "B T"], position: Int[Array, "B T"], longest: int, decoder: bool
) -> Float[Array, "B T M"]:
    x = model.tables[-1 if decoder else 0][tokens].astype(jnp.float32) * model.embedding_factor
    x = model.positions.add(x, position, longest).astype(model.hidden_dtype)
    return shard(x, "batch", "length", "embed")


def _positions_segments(
    tokens: Int[Array, "B S"], length: Int[Array, " B"]
) -> tuple[Int[Array, "B S"], Int[Array, "B S"]]:
    """Return positions and segments [B,S] of rows that hold one sentence each, of lengths [B]."""
    position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return position, (position < length[:, None]).astype(jnp.int32)


def encode(model: InferenceModel, source: Int[Array, "B S"], length: Int[Array, " B"]) -> Encoded:
    """Encode sources, int32 [B,S], one a row, of lengths [B]; the rest of a row is padding."""
    position, segment = _positions_segments(source, length)
    with jax.named_scope("encoder"):
        x = _embed(model, source, position, source.shape[1], decoder=False)
        info = TokenInfo(source, segment > 0, position=position)
        hidden, _ = model.encoder(x, attention_bias(segment, segment), info)
    return Encoded(hidden, segment)


def log_probabilities(
    model: InferenceModel, encoded: Encoded, target: Int[Array, "B T"], length: Int[Array, " B"]
) -> Float32[Array, "B T-1"]:
    """Return log p(target[t] | target[:t], source), float32 [B,T-1] for t from 1 on, by reading whole targets at once.

    Args:
      model: the model.
      encoded: the sources.
      target: int32 [B,T], from the begin token to the end token, one a row.
      length: int32 [B], tokens of each target; the result is 0 beyond.
    """
    reading = _read_targets(model, encoded, target, length)
    x = reading.x
    for weights in model.layers:
        x, _ = weights.layer(x, reading.bias, reading.info, reading.cross, None, Phase.INFER)
    logits = _multiply(model.output_input(x), model.output.T)[..., : model.vocabulary]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), target[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(reading.info.real, chosen, 0.0)


def target_attention(
    model: InferenceModel, encoded: Encoded, target: Int[Array, "B T"], length: Int[Array, " B"], layer: int
) -> Float32[Array, "B T-1 S"]:
    """Return the attention of targets to sources in one decoder layer, the mean over its heads, float32 [B,T-1,S].

    Row t is the attention while target[t] is read, and target[t+1] predicted; 0 beyond the lengths.

    Args:
      model: the model.
      encoded: the sources.
      target: int32 [B,T], from the begin token to the end token, one a row.
      length: int32 [B], tokens of each target.
      layer: the decoder layer, from 0.
    """
    reading = _read_targets(model, encoded, target, length)
    x = reading.x
    for weights in model.layers[:layer]:
        x, _ = weights.layer(x, reading.bias, reading.info, reading.cross, None, Phase.INFER)
    last = model.layers[layer].layer
    y = last.self_norm(x)
    x = last.add(x, last.self_attention(y, y, reading.bias, reading.info.position))
    q = last.cross_attention.queries(last.cross_norm(x))
    k, _ = last.cross_attention.keys_values(encoded.hidden)
    logits = contract("btad,bsad->bats", q * q.shape[-1] ** -0.5, k, last.cross_attention.dtype) + reading.cross.bias
    return jnp.where(reading.info.real[..., None], jax.nn.softmax(logits, axis=-1).mean(axis=1), 0.0)


@dataclass(frozen=True)
class _TargetReading:
    """Whole targets at the entrance of the decoder."""

    x: Float[Array, "B T M"]
    bias: Float[Array, "#B #A T T"]  # of self-attention
    info: TokenInfo
    cross: CrossMemory


def _read_targets(
    model: InferenceModel, encoded: Encoded, target: Int[Array, "B T"], length: Int[Array, " B"]
) -> _TargetReading:
    """Embed all tokens of targets but their last ones."""
    tokens = target[:, :-1]
    position, segment = _positions_segments(tokens, length - 1)
    return _TargetReading(
        _embed(model, tokens, position, tokens.shape[1], decoder=True),
        model.target_positions.add(attention_bias(segment, segment, causal=True), position, position),
        TokenInfo(tokens, segment > 0, position=position),
        CrossMemory(encoded.hidden, attention_bias(jnp.ones_like(segment), encoded.segment)),
    )


def project_sources(model: InferenceModel, encoded: Encoded) -> SourceCache:
    """Project encoded sources to the keys and values of every layer's cross-attention."""
    dtype = cache_dtype(model.output.dtype)
    cells = [_cells(*layer.layer.cross_attention.keys_values(encoded.hidden), dtype) for layer in model.layers]
    return SourceCache([keys for keys, _ in cells], [values for _, values in cells], encoded.segment.sum(axis=1))


def _cells(
    k: Float[Array, "B S A D"], v: Float[Array, "B S A D"], dtype: jnp.dtype
) -> tuple[Float[Array, "B A D S"], Float[Array, "B A S D"]]:
    """Lay out keys and values [B,S,A,D] as cells [B,A,D,S] and [B,A,S,D] of a type."""
    keys, values = k.transpose(0, 2, 3, 1).astype(dtype), v.swapaxes(1, 2).astype(dtype)
    return shard(keys, "batch", "heads", None, None), shard(values, "batch", "heads", None, None)


def empty_cache(model: InferenceModel, rows: int, beam: int, steps: int) -> Cache:
    """Return a cache for so many rows (B), hypotheses a row (W) and steps (T)."""
    heads, width = model.layers[0].layer.self_attention.wq[...].shape[1:]
    keys = jnp.zeros((rows, heads, width, steps * beam), cache_dtype(model.output.dtype))
    keys = shard(keys, "batch", "heads", None, None)
    return Cache([keys for _ in model.layers], [keys.swapaxes(2, 3) for _ in model.layers])


def _attend(
    q: Float[Array, "B W A D"],
    keys: Float[Array, "B A D S"],
    values: Float[Array, "B A S D"],
    bias: Float[Array, "#B #A #W S"],
) -> Float32[Array, "B W A*D"]:
    """Attend from queries [B,W,A,D] to S cells under a bias that broadcasts to [B,A,W,S]; return [B,W,A*D]."""
    logits = contract("bawd,bads->baws", q.swapaxes(1, 2) * q.shape[-1] ** -0.5, keys, keys.dtype) + bias
    y = contract("baws,basd->bawd", jax.nn.softmax(logits, axis=-1), values, values.dtype)
    return y.swapaxes(1, 2).reshape(*q.shape[:2], -1)


def _mean_attention(
    q: Float[Array, "B W A D"], keys: Float[Array, "B A D S"], bias: Float[Array, "#B #A #W S"]
) -> Float32[Array, "B W S"]:
    """Return the weights of attention from queries [B,W,A,D] to S cells, the mean over the heads."""
    logits = contract("bawd,bads->baws", q.swapaxes(1, 2) * q.shape[-1] ** -0.5, keys, keys.dtype) + bias
    return jax.nn.softmax(logits, axis=-1).mean(axis=1)


def _multiply(x: Float[Array, "B W I"], weight: Float[Array, "I O"]) -> Float32[Array, "B W O"]:
    """Return x [B,W,I] times a matrix [I,O]."""
    rows = x.reshape(-1, x.shape[-1])
    return product("ri,io->ro", rows, weight, weight.dtype).reshape(*x.shape[:-1], -1)


def ancestry_bias(ancestor: Int[Array, "B W T"], position: Int[Array, " B"]) -> Float[Array, "B 1 W T*W"]:
    """Return the bias [B,1,W,T*W] that shows a hypothesis the cells on its own path up to a position.

    Args:
      ancestor: int32 [B,W,T]: cell (t, ancestor[b,w,t]) is on the path of hypothesis w.
      position: int32 [B], the newest position of each row.
    """
    rows, beam, steps = ancestor.shape
    own = ancestor[..., None] == jnp.arange(beam)
    own &= (jnp.arange(steps) <= position[:, None])[:, None, :, None]
    return jnp.where(own, 0.0, MASKED).reshape(rows, 1, beam, steps * beam)


def _write_cells(cells: Float[Array, "B ..."], new: Float[Array, "B ..."], start: Int[Array, " B"], axis: int) -> Any:
    """Write new cells [B,...] into cells [B,...] along an axis, each row at its own start, int32 [B]."""
    return jax.vmap(lambda row, part, at: jax.lax.dynamic_update_slice_in_dim(row, part, at, axis - 1))(
        cells, new, start
    )


def decode_step(
    model: InferenceModel,
    tokens: Int[Array, "B W"],
    position: Int[Array, " B"],
    live: Bool[Array, "B W"],
    ancestor: Int[Array, "B W T"],
    source: SourceCache,
    cache: Cache,
    with_attention: bool = False,
) -> tuple[Float32[Array, "B W Q"], Cache, Float32[Array, "B W S"] | None]:
    """Read one token of every hypothesis.

    Args:
      model: the model.
      tokens: int32 [B,W].
      position: int32 [B], their position in each row.
      live: bool [B,W]; the others use no experts, and their logits are meaningless.
      ancestor: int32 [B,W,T], see `ancestry_bias`; at `position` every hypothesis has its own cell.
      source: keys and values of the sources.
      cache: keys and values of the tokens read so far.
      with_attention: whether the attention to the sources is wanted.

    Returns:
      Logits, float32 [B,W,Q], meaningless from V on; the cache with the new cells; the attention that each hypothesis
      pays to each source token, float32 [B,W,S], the mean over the heads of the last layer, or None.
    """
    rows, beam, steps = ancestor.shape
    positions = jnp.broadcast_to(position[:, None], tokens.shape)
    x = _embed(model, tokens, positions, steps, decoder=True)
    cell_position = jnp.repeat(jnp.arange(steps), beam)[None]
    bias = model.target_positions.add(ancestry_bias(ancestor, position), position[:, None], cell_position)
    source_cells = jnp.arange(source.keys[0].shape[-1]) < source.length[:, None]
    source_bias = jnp.where(source_cells, 0.0, MASKED)[:, None, None]
    info = TokenInfo(tokens, live, position=positions)
    all_keys, all_values, attention = [], [], None
    for i, weights in enumerate(model.layers):
        layer, own = weights.layer, weights.layer.self_attention
        heads, width = own.wq[...].shape[1:]
        with jax.named_scope("self_attention"):
            qkv = weights.self_in(layer.self_norm(x)).reshape(rows, beam, 3, heads, width)
            q, k = (own.rotate(qkv[:, :, index], positions) for index in (0, 1))
            new_keys, new_values = _cells(k, qkv[:, :, 2], cache.keys[i].dtype)
            keys = _write_cells(cache.keys[i], new_keys, position * beam, axis=3)
            values = _write_cells(cache.values[i], new_values, position * beam, axis=2)
            x = layer.add(x, weights.self_out(_attend(q, keys, values, bias)))
        with jax.named_scope("cross_attention"):
            q = weights.cross_in(layer.cross_norm(x)).reshape(rows, beam, heads, width)
            x = layer.add(x, weights.cross_out(_attend(q, source.keys[i], source.values[i], source_bias)))
            attention = _mean_attention(q, source.keys[i], source_bias) if with_attention else None
        x, _ = layer.feed_forward(x, info)
        x = shard(x, "batch", "length", "embed")
        all_keys.append(keys)
        all_values.append(values)
    logits = product("bwm,qm->bwq", model.output_input(x), model.output, model.output.dtype)
    return logits, Cache(all_keys, all_values), attention
