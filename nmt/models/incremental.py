"""One decoding step from caches: the decoder unrolled, its weights in the compute type, keys and values kept.

Hypotheses never move. Cell (t, w) of a cache holds the key and the value of the token that hypothesis w read at
position t, and a table of ancestors says which cells are on the path of which hypothesis. When hypotheses are exchanged
only that small table is, and the W hypotheses of a sentence attend to their common cells in one product. Every row is
at a position of its own, so that sentences that begin later can share a batch.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from nmt.models.attention import MASKED, attention_bias
from nmt.models.embedding import embedding_factor, output_factor
from nmt.models.inference_layers import (
    DecoderLayer,
    EncoderLayer,
    add_residual,
    apply_norm,
    attend_cells,
    decoder_layer,
    encoder_layer,
    lay_out_cells,
    mean_attention,
)
from nmt.models.norms import Norm
from nmt.models.positions import AddedPositions, PositionBias
from nmt.models.precision import Precision
from nmt.models.tokens import TokenInfo
from nmt.models.transformer import Transformer
from nmt.models.weight_matrix import WeightMatrix, log_sum_last, look_up_weights, multiply, weight_matrix
from nmt.sharding import platform, shard


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InferenceModel:
    """A model's weights for inference, layer by layer.

    A table of embeddings that is the output layer, or that of sources where it is that of targets, is kept once.
    """

    source_table: WeightMatrix | None  # [V,M], embeddings of sources; None: those of targets
    target_table: WeightMatrix | None  # [V,M]; None: the output layer
    output: WeightMatrix  # [Q,M], zero rows from V on
    positions: AddedPositions  # added to embeddings
    encoder: list[EncoderLayer]
    encoder_norm: Norm
    source_positions: PositionBias  # added to the logits of the encoder's self-attention
    layers: list[DecoderLayer]
    target_positions: PositionBias  # added to the logits of the decoder's self-attention
    norm: Norm
    vocabulary: int = field(metadata={"static": True})  # the number of target ids (V)
    embedding_factor: float = field(metadata={"static": True})
    output_factor: float = field(metadata={"static": True})
    hidden_dtype: jnp.dtype = field(metadata={"static": True})  # of hidden states between layers
    cell_dtype: jnp.dtype = field(metadata={"static": True})  # of keys and values

    @property
    def head_width(self) -> int:
        """The width of a head (D)."""
        layer = self.layers[0]
        return layer.self_out.matrix.weight.shape[1] // layer.heads

    def table(self, decoder: bool) -> WeightMatrix:
        """Return the embeddings of targets or of sources, [V,M], or [Q,M] with rows that are not used."""
        table = self.target_table if decoder or self.source_table is None else self.source_table
        return self.output if table is None else table

    def output_input(self, x: Float[Array, "B T M"]) -> Float32[Array, "B T M"]:
        """Return the input of the output layer, float32 [B,T,M], for hidden states [B,T,M] of the last layer."""
        return apply_norm(self.norm, x.astype(jnp.float32)) * self.output_factor

    def logits(self, x: Float[Array, "B T M"]) -> Float32[Array, "B T Q"]:
        """Return logits, float32 [B,T,Q], meaningless from V on, for hidden states [B,T,M] of the last layer."""
        return multiply(self.output_input(x), self.output)


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


def inference_model(model: Transformer, multiple: int = 1, precision: Precision | None = None) -> InferenceModel:
    """Return the weights of a model prepared for decoding; call it once, jitted.

    Args:
      model: the model.
      multiple: Q, the rows of `output`, is V rounded up to a multiple of this.
      precision: of the matrices; None: what the model computes in, `model.dtype`. What is no product with a matrix of
        a dense layer is as `model.dtype` says.
    """
    kept: Precision = precision or _stored_precision(model.dtype)
    encoder, decoder = (
        jax.tree_util.tree_map_with_path(partial(_cast, model.dtype), s) for s in (model.encoder, model.decoder)
    )
    table, separate = model.output_table, model.config.embeddings == "separate"
    return InferenceModel(
        source_table=weight_matrix(model.source_table, kept) if separate else None,
        target_table=None if model.config.tie_output else weight_matrix(model.target_table, kept),
        output=weight_matrix(jnp.pad(table, ((0, -table.shape[0] % multiple), (0, 0))), kept),
        positions=model.positions,
        encoder=[encoder_layer(encoder.layer(i), kept) for i in range(encoder.layers)],
        encoder_norm=encoder.norm,
        source_positions=encoder.positions,
        layers=[decoder_layer(decoder.layer(i), kept) for i in range(decoder.layers)],
        target_positions=decoder.positions,
        norm=decoder.norm,
        vocabulary=table.shape[0],
        embedding_factor=embedding_factor(model.config),
        output_factor=output_factor(model.config),
        hidden_dtype=jnp.dtype(model.config.activation_dtype),
        cell_dtype=cache_dtype(model.dtype),
    )


def _stored_precision(dtype: jnp.dtype) -> Precision:
    return "bfloat16" if dtype == jnp.bfloat16 else "float32"


def _cast(dtype: jnp.dtype, path: tuple[Any, ...], weight: jax.Array) -> jax.Array:
    """Return weights of experts in the type of products, which round to it anyway."""
    names = [getattr(key, "name", None) for key in path]
    return weight.astype(dtype) if "moe" in names and names[-2] in ("wi", "wg", "wo") else weight


def _embed(
    model: InferenceModel, tokens: Int[Array, "B T"], position: Int[Array, "B T"], longest: int, decoder: bool
) -> Float[Array, "B T M"]:
    x = look_up_weights(model.table(decoder), tokens) * model.embedding_factor
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
        bias = model.source_positions.add(attention_bias(segment, segment), position, position)
        for layer in model.encoder:
            x = layer.feed_forward(_attend_to_itself(layer, x, position, bias, model.cell_dtype), info)
        hidden = apply_norm(model.encoder_norm, x.astype(jnp.float32))
    return Encoded(hidden, segment)


def _attend_to_itself(
    layer: EncoderLayer,
    x: Float[Array, "B T M"],
    position: Int[Array, "B T"],
    bias: Float[Array, "#B #A T T"],
    dtype: jnp.dtype,
) -> Float[Array, "B T M"]:
    """Return hidden states [B,T,M] of whole sequences after a layer's self-attention."""
    with jax.named_scope("self_attention"):
        q, k, v = layer.self_queries_keys_values(x, position)
        return add_residual(x, layer.self_out(attend_cells(q, *lay_out_cells(k, v, dtype), bias)))


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
    logits = model.logits(_read_layers(model, reading, len(model.layers)))[..., : model.vocabulary]
    chosen = jnp.take_along_axis(logits, target[:, 1:, None], axis=-1)[..., 0] - log_sum_last(logits)
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
    x = _read_layers(model, reading, layer)
    last = model.layers[layer]
    x = _attend_to_itself(last, x, reading.position, reading.bias, model.cell_dtype)
    weights = mean_attention(last.cross_queries(x), reading.source.keys[layer], reading.source_bias)
    return jnp.where(reading.info.real[..., None], weights, 0.0)


@dataclass(frozen=True)
class _TargetReading:
    """Whole targets at the entrance of the decoder."""

    x: Float[Array, "B T M"]
    position: Int[Array, "B T"]
    bias: Float[Array, "#B #A T T"]  # of self-attention
    info: TokenInfo
    source: SourceCache
    source_bias: Float[Array, "B 1 1 S"]


def _read_targets(
    model: InferenceModel, encoded: Encoded, target: Int[Array, "B T"], length: Int[Array, " B"]
) -> _TargetReading:
    """Embed all tokens of targets but their last ones."""
    tokens = target[:, :-1]
    position, segment = _positions_segments(tokens, length - 1)
    return _TargetReading(
        _embed(model, tokens, position, tokens.shape[1], decoder=True),
        position,
        model.target_positions.add(attention_bias(segment, segment, causal=True), position, position),
        TokenInfo(tokens, segment > 0, position=position),
        project_sources(model, encoded),
        jnp.where(encoded.segment > 0, 0.0, MASKED)[:, None, None],
    )


def _read_layers(model: InferenceModel, reading: _TargetReading, layers: int) -> Float[Array, "B T M"]:
    """Return hidden states [B,T,M] of whole targets after the first layers."""
    x, source = reading.x, reading.source
    for layer, keys, values in zip(model.layers[:layers], source.keys, source.values, strict=False):
        x = _attend_to_itself(layer, x, reading.position, reading.bias, model.cell_dtype)
        with jax.named_scope("cross_attention"):
            y = attend_cells(layer.cross_queries(x), keys, values, reading.source_bias)
            x = add_residual(x, layer.cross_out(y))
        x = layer.feed_forward(x, reading.info)
    return x


def project_sources(model: InferenceModel, encoded: Encoded) -> SourceCache:
    """Project encoded sources to the keys and values of every layer's cross-attention."""
    cells = [layer.cross_keys_values(encoded.hidden, model.cell_dtype) for layer in model.layers]
    return SourceCache([keys for keys, _ in cells], [values for _, values in cells], encoded.segment.sum(axis=1))


def empty_cache(model: InferenceModel, rows: int, beam: int, steps: int) -> Cache:
    """Return a cache for so many rows (B), hypotheses a row (W) and steps (T)."""
    keys = jnp.zeros((rows, model.layers[0].heads, model.head_width, steps * beam), model.cell_dtype)
    keys = shard(keys, "batch", "heads", None, None)
    return Cache([keys for _ in model.layers], [keys.swapaxes(2, 3) for _ in model.layers])


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
    _, beam, steps = ancestor.shape
    positions = jnp.broadcast_to(position[:, None], tokens.shape)
    x = _embed(model, tokens, positions, steps, decoder=True)
    cell_position = jnp.repeat(jnp.arange(steps), beam)[None]
    bias = model.target_positions.add(ancestry_bias(ancestor, position), position[:, None], cell_position)
    source_cells = jnp.arange(source.keys[0].shape[-1]) < source.length[:, None]
    source_bias = jnp.where(source_cells, 0.0, MASKED)[:, None, None]
    info = TokenInfo(tokens, live, position=positions)
    all_keys, all_values, attention = [], [], None
    for i, layer in enumerate(model.layers):
        with jax.named_scope("self_attention"):
            q, k, v = layer.self_queries_keys_values(x, positions)
            new_keys, new_values = lay_out_cells(k, v, cache.keys[i].dtype)
            keys = _write_cells(cache.keys[i], new_keys, position * beam, axis=3)
            values = _write_cells(cache.values[i], new_values, position * beam, axis=2)
            x = add_residual(x, layer.self_out(attend_cells(q, keys, values, bias)))
        with jax.named_scope("cross_attention"):
            q = layer.cross_queries(x)
            x = add_residual(x, layer.cross_out(attend_cells(q, source.keys[i], source.values[i], source_bias)))
            attention = mean_attention(q, source.keys[i], source_bias) if with_attention else None
        x = layer.feed_forward(x, info)
        all_keys.append(keys)
        all_values.append(values)
    return model.logits(x), Cache(all_keys, all_values), attention
