"""Matrices of weights for inference, stored in float32, bfloat16 or int8, and their products.

An int8 matrix has one scale for each output, and a row of activations one for itself, found from its greatest absolute
value when it is multiplied, so that nothing has to be calibrated (as in CTranslate2 and Marian). Products of integers
are added up in int32, which is exact, and rescaled in float32.

The result of a row is the same bit for bit however many rows are multiplied with it. On CPUs that decides about the
layout. Products of XLA:CPU with a matrix that is stored by inputs, [I,O], add up in another order for few rows than for
many in float32; stored by outputs, [O,I], only a single row is special: it is a plain loop, and in int8 and bfloat16
one that takes longer than the kernel does for eight rows. So a single row is multiplied twice.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int8, Shaped

from nmt.models.precision import Precision
from nmt.sharding import einsum, platform

LARGEST = 127  # of the integers that weights and activations become; -128 is not used
FEWEST_SUMS = 8  # sums of a row that are computed at once, so that XLA:CPU takes its kernel for products


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WeightMatrix:
    """A matrix of weights, stored by outputs; with leading axes several of them, such as one for each expert."""

    weight: Shaped[Array, "*any O I"]  # float32, bfloat16 or int8
    scale: Float32[Array, "*any O"] | None = None  # of int8: weight * scale are the weights

    @property
    def dtype(self) -> jnp.dtype:
        """The type that weights are stored in."""
        return self.weight.dtype


def weight_matrix(weights: Float[Array, "*any O I"], precision: Precision) -> WeightMatrix:
    """Return weights [...,O,I], given by outputs, as a matrix of a precision; call it jitted."""
    if precision != "int8":
        return WeightMatrix(weights.astype(precision))
    return WeightMatrix(*_quantise(weights))


def _quantise(x: Float[Array, "*any I"]) -> tuple[Int8[Array, "*any I"], Float32[Array, "*any"]]:
    """Return x [...,I] as integers, and the scale of each row [...], whose product is x up to rounding.

    A row that has no finite scale has no finite product either.
    """
    x = x.astype(jnp.float32)
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    inverse = LARGEST / jnp.where(largest > 0, largest, 1.0)
    return jnp.round(x * inverse).astype(jnp.int8), largest[..., 0] * (1 / LARGEST)


def multiply(x: Float[Array, "*any I"], matrix: WeightMatrix) -> Float32[Array, "*any O"]:
    """Return x [...,I] times the transposed matrix [O,I]: float32 [...,O], each row a function of that row alone."""
    rows = x.reshape(-1, x.shape[-1])
    single = rows.shape[0] == 1 and platform() == "cpu"
    if single:
        rows = jax.lax.optimization_barrier(jnp.concatenate([rows, rows]))
    result = _product(rows, matrix)
    if single:
        result = jax.lax.optimization_barrier(result)[:1]
    return result.reshape(*x.shape[:-1], -1)


def _product(rows: Float[Array, "R I"], matrix: WeightMatrix) -> Float32[Array, "R O"]:
    if matrix.scale is None:
        return einsum("ri,oi->ro", rows.astype(matrix.dtype), matrix.weight, preferred_element_type=jnp.float32)
    whole, scale = _quantise(rows)
    product = einsum("ri,oi->ro", whole, matrix.weight, preferred_element_type=jnp.int32)
    return product.astype(jnp.float32) * scale[:, None] * matrix.scale


def multiply_columns(matrix: WeightMatrix, columns: Float[Array, "I R"]) -> Float32[Array, "O R"]:
    """Return the matrix [O,I] times columns [I,R], each column quantised by itself as a row is in `multiply`.

    XLA for CPUs packs the second factor of a product, here the small one: few columns take less than half the time that
    as many rows do. Their sums may be taken in another order.
    """
    if matrix.scale is None:
        return jnp.dot(matrix.weight, columns.astype(matrix.dtype), preferred_element_type=jnp.float32)
    whole, scale = _quantise(columns.T)
    product = jnp.dot(matrix.weight, whole.T, preferred_element_type=jnp.int32)
    return product.astype(jnp.float32) * matrix.scale[:, None] * scale


def look_up_weights(matrix: WeightMatrix, index: Int[Array, "*any"]) -> Float32[Array, "*any I"]:
    """Return the weights of outputs [...] of a matrix [O,I], float32 [...,I]: the embeddings of tokens."""
    rows = matrix.weight[index].astype(jnp.float32)
    return rows if matrix.scale is None else rows * matrix.scale[index][..., None]


def sum_last(x: Float[Array, "*any I"]) -> Float32[Array, "*any"]:
    """Return the sums [...] over the last axis of x [...,I], each the same however many there are.

    A plain sum of XLA:CPU adds up in an order that depends on how many sums there are. A product with ones does not.
    """
    if platform() != "cpu":
        return x.sum(axis=-1, dtype=jnp.float32)
    return multiply(x, WeightMatrix(jnp.ones((FEWEST_SUMS, x.shape[-1]), jnp.float32)))[..., 0]


def log_sum_last(x: Float[Array, "*any I"]) -> Float32[Array, "*any"]:
    """Return the logarithms [...] of sums of exp(x) over the last axis of x [...,I]; see `sum_last`."""
    greatest = jnp.max(x, axis=-1, keepdims=True)
    greatest = jnp.where(jnp.isfinite(greatest), greatest, 0.0)
    return greatest[..., 0] + jnp.log(sum_last(jnp.exp(x - greatest)))


def mean_last(x: Float[Array, "*any I"]) -> Float32[Array, "*any 1"]:
    """Return the means [...,1] over the last axis of x [...,I]; see `sum_last`."""
    return sum_last(x)[..., None] * (1 / x.shape[-1])
