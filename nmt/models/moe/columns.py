"""Experts at inference on a CPU: a matrix of its own for every expert, and few rows at a time, which stand as columns.

A step of decoding has few rows, so most experts get none to four of them and time goes into reading the weights of the
experts that are used. XLA for CPUs copies the slice of an array of all experts before it multiplies with it, and its
product of few rows [R,I] with a matrix [I,O] packs the matrix anew every time. The product of a matrix [O,I] with
columns [I,R] takes the matrix as it lies, so here the experts are matrices [O,I], each an array, and a loop over the
blocks of columns that are used branches to the expert of each.

The result of a row depends on that row alone, bit for bit: padding is sent to no expert, the columns of a block do not
touch each other, and a step has blocks of one size, whatever the number of its rows. Sums of products of other sizes
may be taken in another order.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from nmt.models.activations import activate
from nmt.models.moe.grouped import MOST_ROWS, BlockLayout, block_rows, sort_into_blocks
from nmt.models.moe.routing import Routing
from nmt.models.moe.rows import collect, take
from nmt.models.weight_matrix import WeightMatrix, multiply_columns
from nmt.sharding import one_device, platform

BLOCK = 8  # columns of a block, in steps of decoding
MOST_CHOICES = 2048  # of a step of decoding; where there are more, whole texts are read
MOST_EXPERTS = 128  # each is a branch to be compiled


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Expert:
    """The weights of one expert, for columns."""

    inner: WeightMatrix  # [H,M]
    gate: WeightMatrix | None  # [H,M]
    outer: WeightMatrix  # [M,H]
    inner_bias: Float32[Array, " H"] | None
    gate_bias: Float32[Array, " H"] | None
    outer_bias: Float32[Array, " M"] | None

    def __call__(self, columns: Float[Array, "M R"], activation: str) -> Float32[Array, "M R"]:
        """Transform columns."""
        gate = None if self.gate is None else _project(self.gate, columns, self.gate_bias)
        hidden = activate(activation, _project(self.inner, columns, self.inner_bias), gate)
        return _project(self.outer, hidden, self.outer_bias)


def _project(
    matrix: WeightMatrix, columns: Float[Array, "I R"], bias: Float32[Array, " O"] | None
) -> Float32[Array, "O R"]:
    y = multiply_columns(matrix, columns)
    return y if bias is None else y + bias[:, None]


def separable(experts: int) -> bool:
    """Return whether inference with so many experts is to have them separately: on one device, a CPU."""
    return platform() == "cpu" and one_device() and experts <= MOST_EXPERTS


def block_columns(choices: int, experts: int) -> int:
    """Return the columns of a block for so many choices of experts."""
    return BLOCK if choices <= MOST_CHOICES else block_rows(choices, experts, MOST_ROWS)


def columns_dispatch(
    x: Float[Array, "G N M"], routing: Routing, experts: tuple[Expert, ...], activation: str
) -> Float[Array, "G N M"]:
    """Move tokens to experts that are separate, and back; nothing is dropped.

    Args:
      x: hidden states of tokens.
      routing: where they go.
      experts: all E of them.
      activation: of their hidden units.

    Returns:
      Of the type of x: the gated sum of the experts' outputs, zero for tokens that go nowhere.
    """
    width, choices = x.shape[-1], routing.expert.shape[-1]
    rows = x.reshape(-1, width)
    size = block_columns(rows.shape[0] * choices, len(experts))
    expert, kept = (part.reshape(-1, choices) for part in (routing.expert, routing.kept))
    layout = sort_into_blocks(expert, kept, len(experts), size)
    outputs = _run_blocks(rows, layout, size, experts, activation).astype(x.dtype)
    return collect(outputs, routing.gate.reshape(-1, choices), layout.occupant, layout.place).reshape(x.shape)


def _run_blocks(
    x: Float[Array, "N M"], layout: BlockLayout, size: int, experts: tuple[Expert, ...], activation: str
) -> Float32[Array, "P M"]:
    """Return the results of all places; those of places in blocks that are not used are zero."""
    places = layout.occupant.shape[0]

    def run(block: Int32[Array, ""], outputs: Float32[Array, "P M"]) -> Float32[Array, "P M"]:
        tokens = jax.lax.dynamic_slice_in_dim(layout.occupant, block * size, size)
        branches = [partial(expert, activation=activation) for expert in experts]
        columns = jax.lax.switch(layout.blocks.owner[block], branches, take(x, tokens).T)
        return jax.lax.dynamic_update_slice_in_dim(outputs, columns.T, block * size, axis=0)

    return jax.lax.fori_loop(0, layout.blocks.used, run, jnp.zeros((places, x.shape[1]), jnp.float32))
