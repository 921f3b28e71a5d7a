"""Grouped products: rows sorted by expert, in blocks of one expert each, times the weights of their experts.

Nothing is dropped, and the work grows with the tokens and not with the number of experts: an expert wastes less than
one block. TPUs have `jax.lax.ragged_dot` for it; XLA for CPUs and for GPUs computes that for every pair of row and
expert. So on CPUs a loop runs over the blocks that are used; on GPUs, each block is given a copy of its expert's
weights, and all are one batched product.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Shaped

from nmt.models.moe.ranks import ranks_within_experts
from nmt.models.moe.rows import invert, no_gradient
from nmt.models.numerics import contract_rows, from_integer_bits, integer_bits
from nmt.sharding import platform

FEWEST_ROWS, MOST_ROWS = 8, 128  # of a block
MOST_ROWS_OF_GPU = 512  # a copy of weights is to be paid for with many rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks:
    """The owners of blocks of rows."""

    owner: Int32[Array, " X"]  # the expert of each block
    used: Int32[Array, ""]  # how many blocks, the first ones, hold a row


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BlockLayout:
    """The places of choices among the P = X * R rows of X blocks."""

    occupant: Int32[Array, " P"]  # the token of each place, N where it is empty
    place: Int32[Array, "N K"]  # the place of each choice, P where it is not kept
    blocks: Blocks


def block_rows(choices: int, experts: int, most: int) -> int:
    """Return the rows of a block: near the mean rows of an expert, so that padding stays below the work itself."""
    mean = max(1.0, choices / experts)
    return max(FEWEST_ROWS, min(most, int(2 ** round(math.log2(mean)))))


def most_rows() -> int:
    """Return the most rows of a block for the devices that a program is made for."""
    return MOST_ROWS_OF_GPU if platform() == "gpu" else MOST_ROWS


def sort_into_blocks(
    expert: Int[Array, "N K"], kept: Bool[Array, "N K"], experts: int, rows: int | None = None
) -> BlockLayout:
    """Sort choices by expert into blocks of one expert each.

    Args:
      expert: the expert of each choice.
      kept: the choices that get a place.
      experts: E.
      rows: R, of a block; None: those that suit training.
    """
    choices = expert.size
    rows = rows or block_rows(choices, experts, most_rows())
    blocks = min(choices, choices // rows + experts)  # each that is used holds a row
    rank = ranks_within_experts(kept[None], expert[None], experts)[0]
    count = ((expert[..., None] == jnp.arange(experts)) & kept[..., None]).sum(axis=(0, 1), dtype=jnp.int32)  # [E]
    end = jnp.cumsum(-(-count // rows))  # the block after the last one of each expert
    begin = end - -(-count // rows)
    place = jnp.where(kept, begin[expert] * rows + rank, blocks * rows).astype(jnp.int32)
    owner = (jnp.arange(blocks)[:, None] >= end).sum(axis=-1, dtype=jnp.int32)
    return BlockLayout(invert(place, blocks * rows), place, Blocks(jnp.minimum(owner, experts - 1), end[-1]))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def grouped_product(
    rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], blocks: Blocks, dtype: jnp.dtype
) -> Float32[Array, "X R O"]:
    """Multiply every block of rows by the matrix of its expert.

    Inputs are rounded to `dtype` and sums are float32, forward and backward, as in `nmt.models.numerics.product`.

    Args:
      rows: blocks of rows.
      weights: the matrix of each expert.
      blocks: the owners of the blocks.
      dtype: input type of the products.

    Returns:
      The products; zero in blocks that are not used, whose rows have no part in a derivative either.
    """
    ways = {"cpu": _looped, "cuda": _copied, "rocm": _copied, "default": _ragged}
    return jax.lax.platform_dependent(
        rows, weights, blocks, **{name: partial(way, dtype=dtype) for name, way in ways.items()}
    )


Saved = tuple[Float[Array, "X R I"], Float[Array, "E I O"], Blocks]
Gradients = tuple[Float32[Array, "X R I"], Float32[Array, "E I O"]]


def _grouped_forward(
    rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], blocks: Blocks, dtype: jnp.dtype
) -> tuple[Float32[Array, "X R O"], Saved]:
    return grouped_product(rows, weights, blocks, dtype), (rows, weights, blocks)


def _grouped_backward(
    dtype: jnp.dtype, saved: Saved, gradient: Float[Array, "X R O"]
) -> tuple[Float[Array, "X R I"], Float[Array, "E I O"], Any]:
    ways = {"cpu": _looped_backward, "cuda": _copied_backward, "rocm": _copied_backward, "default": _ragged_backward}
    rows_gradient, weights_gradient = jax.lax.platform_dependent(
        *saved, gradient, **{name: partial(way, dtype=dtype) for name, way in ways.items()}
    )
    rows, weights, blocks = saved
    return rows_gradient.astype(rows.dtype), weights_gradient.astype(weights.dtype), jax.tree.map(no_gradient, blocks)


grouped_product.defvjp(_grouped_forward, _grouped_backward)


def _take(array: Shaped[Array, " _ *any"], index: Array) -> Shaped[Array, "*any"]:
    return jax.lax.dynamic_index_in_dim(array, index, keepdims=False)


def _part(array: Shaped[Array, " _ *any"], index: Array, dtype: jnp.dtype) -> Float[Array, "*any"]:
    """Return a part of an array that was made ready by `integer_bits`, in another type."""
    return from_integer_bits(_take(array, index), jnp.dtype(jnp.bfloat16)).astype(dtype)


def _put(array: Float[Array, " _ *any"], part: Float[Array, "*any"], index: Array) -> Float[Array, " _ *any"]:
    return jax.lax.dynamic_update_index_in_dim(array, part, index, 0)


def _looped(
    rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], blocks: Blocks, dtype: jnp.dtype
) -> Float32[Array, "X R O"]:
    """Multiply one block after the other."""
    rows, weights = integer_bits(rows), integer_bits(weights)

    def step(block: Array, result: Float32[Array, "X R O"]) -> Float32[Array, "X R O"]:
        x, w = _part(rows, block, dtype), _part(weights, _take(blocks.owner, block), dtype)
        return _put(result, jnp.dot(x, w, preferred_element_type=jnp.float32), block)

    empty = jnp.zeros((*rows.shape[:2], weights.shape[2]), jnp.float32)
    return jax.lax.fori_loop(0, blocks.used, step, empty)


def _looped_backward(
    rows: Float[Array, "X R I"],
    weights: Float[Array, "E I O"],
    blocks: Blocks,
    gradient: Float[Array, "X R O"],
    dtype: jnp.dtype,
) -> Gradients:
    """Return the derivatives by rows and by weights; those of an expert's blocks are added up where they stay."""
    parts = integer_bits(rows), integer_bits(weights), integer_bits(gradient)

    def step(block: Array, results: Gradients) -> Gradients:
        rows_gradient, weights_gradient = results
        owner = _take(blocks.owner, block)
        x, w, dy = (_part(a, i, dtype) for a, i in zip(parts, (block, owner, block), strict=True))
        x_gradient = jnp.einsum("ro,io->ri", dy, w, preferred_element_type=jnp.float32)
        w_gradient = _take(weights_gradient, owner) + contract_rows("ri", x, "ro", dy, "io")
        return _put(rows_gradient, x_gradient, block), _put(weights_gradient, w_gradient, owner)

    empty = jnp.zeros(rows.shape, jnp.float32), jnp.zeros(weights.shape, jnp.float32)
    return jax.lax.fori_loop(0, blocks.used, step, empty)


def _copied(
    rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], blocks: Blocks, dtype: jnp.dtype
) -> Float32[Array, "X R O"]:
    """Multiply all blocks at once, each by a copy of the weights of its expert."""
    owned = weights.astype(dtype)[blocks.owner]
    product = jnp.einsum("xri,xio->xro", rows.astype(dtype), owned, preferred_element_type=jnp.float32)
    return _zero_unused(product, blocks)


def _copied_backward(
    rows: Float[Array, "X R I"],
    weights: Float[Array, "E I O"],
    blocks: Blocks,
    gradient: Float[Array, "X R O"],
    dtype: jnp.dtype,
) -> Gradients:
    rows_gradient = _copied(gradient, weights.swapaxes(1, 2), blocks, dtype)
    x, dy = rows.astype(dtype), gradient.astype(dtype)
    block_gradients = _zero_unused(jnp.einsum("xri,xro->xio", x, dy, preferred_element_type=jnp.float32), blocks)
    # Blocks that are not used are counted to the last expert, and zero.
    return rows_gradient, jax.ops.segment_sum(block_gradients, blocks.owner, weights.shape[0], indices_are_sorted=True)


def _sizes(blocks: Blocks, rows: int, experts: int) -> Int32[Array, " {experts}"]:
    """Return how many rows each expert has, whole blocks."""
    used = jnp.arange(blocks.owner.shape[0]) < blocks.used
    return rows * ((blocks.owner[:, None] == jnp.arange(experts)) & used[:, None]).sum(axis=0, dtype=jnp.int32)


def _zero_unused(array: Float32[Array, " X *any"], blocks: Blocks) -> Float32[Array, " X *any"]:
    """Return an array with zeros in the blocks that are not used, whose values `ragged_dot` leaves undefined."""
    return jnp.where((jnp.arange(array.shape[0]) < blocks.used)[:, None, None], array, 0)


def _ragged(
    rows: Float[Array, "X R I"], weights: Float[Array, "E I O"], blocks: Blocks, dtype: jnp.dtype
) -> Float32[Array, "X R O"]:
    """Multiply by the kernel that accelerators have."""
    sizes = _sizes(blocks, rows.shape[1], weights.shape[0])
    flat = rows.reshape(-1, rows.shape[2]).astype(dtype)
    result = jax.lax.ragged_dot(flat, weights.astype(dtype), sizes, preferred_element_type=jnp.float32)
    return _zero_unused(result.reshape(*rows.shape[:2], -1), blocks)


def _ragged_backward(
    rows: Float[Array, "X R I"],
    weights: Float[Array, "E I O"],
    blocks: Blocks,
    gradient: Float[Array, "X R O"],
    dtype: jnp.dtype,
) -> Gradients:
    rows_gradient = _ragged(gradient, weights.swapaxes(1, 2), blocks, dtype)
    x, dy = (array.reshape(-1, array.shape[2]).astype(dtype) for array in (rows, gradient))
    contract = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
    )
    sizes = _sizes(blocks, rows.shape[1], weights.shape[0])
    return rows_gradient, jax.lax.ragged_dot_general(x, dy, sizes, contract, preferred_element_type=jnp.float32)
