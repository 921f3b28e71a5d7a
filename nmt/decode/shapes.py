"""The few shapes of a search: lengths of sources, rows, and tokens of targets; and those of a plan."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import DecodeConfig
from nmt.decode.beam import RowLimits, TargetRules
from nmt.decode.choices import ChoiceRules, RowChoice
from nmt.decode.options import SearchOptions
from nmt.decode.selection import COLUMNS
from nmt.decode.slots import search_batch
from nmt.models.incremental import InferenceModel, inference_model
from nmt.models.transformer import Transformer
from nmt.sharding import shard_count

SHORTEST_BUCKET = 16  # positions (S) of the shortest bucket; the others double, up to the longest source
# The weights of a model as a search reads them.
prepare_model = jax.jit(partial(inference_model, multiple=COLUMNS), static_argnames="precision")

MARGIN = 8  # a translation is first given room for this many tokens more than its source's bucket


def source_buckets(longest: int) -> list[int]:
    """Return the lengths of buckets: 16, 32, 64 and so on, the last of them `longest`."""
    buckets = [SHORTEST_BUCKET]
    while buckets[-1] < longest:
        buckets.append(min(2 * buckets[-1], longest))
    return buckets


def target_rooms(bucket: int, options: SearchOptions) -> tuple[list[int], list[int]]:
    """Return the rooms (T) for targets of sources of a bucket: short ones for the beginning of long targets, and usual.

    Cells of a cache cost time at every step. The usual rooms are one that is nearly always enough, as few translations
    are much longer than their source, and the full one; short ones double from the shortest bucket.
    """
    full = options.max_tokens(bucket - 2) + 1
    usual = sorted({min(bucket + MARGIN, full), full})
    return [room for room in source_buckets(bucket) if 2 * room <= usual[0] + MARGIN], usual


def largest_batch(batch_tokens: int, bucket: int, shards: int) -> int:
    """Return the most rows (B) for sources of a bucket: a power of two, on a mesh that splits rows in `shards`.

    All of them together have so many positions of sources at most.
    """
    return rows_for(max(1, batch_tokens // bucket), shards, down=True)


def rows_for(sentences: int, shards: int, down: bool = False) -> int:
    """Return a power of two of rows for so many sentences, rounded up (or down), and then up to whole shards."""
    exponent = math.log2(max(1, sentences))
    power = 2 ** (math.floor(exponent) if down else math.ceil(exponent))
    return -(-power // shards) * shards


@dataclass(frozen=True)
class SearchShapes:
    """Shapes of a search over a batch of the longest sources, without values."""

    model: InferenceModel  # `jax.ShapeDtypeStruct`s with shardings
    rows: int  # B
    source: int  # S
    steps: int  # T, of the first cache
    beam: int  # W
    cells: int  # bytes on one device of keys and values of decoded tokens
    source_cells: int  # bytes on one device of keys and values of sources


def search_shapes(
    graph: nnx.GraphDef[Transformer], parameters: nnx.State, longest: int, config: DecodeConfig
) -> SearchShapes:
    """Return the shapes of a search; its mesh is to be set.

    Args:
      graph: the structure of a model.
      parameters: its parameters, `jax.ShapeDtypeStruct`s with shardings.
      longest: tokens of the longest source.
      config: beam and limits.
    """
    model = nnx.merge(graph, parameters)
    prepared = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(prepare_model, model),
        prepare_model.lower(model).compile().output_shardings,
    )
    bucket, options = source_buckets(longest)[-1], SearchOptions.from_config(config)
    rows, steps = largest_batch(config.batch_tokens, bucket, shard_count("batch")), target_rooms(bucket, options)[1][0]
    cells = 2 * len(prepared.layers) * prepared.layers[0].heads * prepared.head_width
    cell_bytes = cells * prepared.cell_dtype.itemsize
    device_bytes = rows * cell_bytes // (shard_count("batch") * shard_count("heads"))
    return SearchShapes(
        prepared, rows, bucket, steps, options.width, steps * options.width * device_bytes, bucket * device_bytes
    )


def lower_search(shapes: SearchShapes) -> jax.stages.Lowered:
    """Return the program that translates a batch, ready to be compiled; its mesh is to be set."""

    def abstract(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    rows, weights = abstract(shapes.rows), abstract(shapes.rows, dtype=jnp.float32)
    return search_batch.lower(
        shapes.model,
        abstract(shapes.rows, shapes.source),
        rows,
        rows,
        RowLimits(rows, rows, weights, weights, RowChoice()),
        TargetRules(
            abstract(), abstract(shapes.model.vocabulary, dtype=bool), ChoiceRules(), abstract(), abstract(dtype=bool)
        ),
        beam=shapes.beam,
        kept=1,
        steps=shapes.steps,
    )
