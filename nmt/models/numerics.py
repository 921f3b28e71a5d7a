"""Matrix products with a chosen input type, and dropout that costs no memory."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray, Shaped, UInt32

from nmt.sharding import einsum, is_explicit, platform

# Names by which policies of rematerialisation know values.
PRODUCT = "product"  # results of `product`
MOVED = "moved"  # tokens as sent to experts, and as they came back


def product(spec: str, x: Float[Array, "..."], w: Float[Array, "..."], dtype: jnp.dtype) -> Float32[Array, "..."]:
    """Return `einsum(spec, x, w)`, a product with a weight, in float32; see `contract`."""
    return checkpoint_name(contract(spec, x, w, dtype), PRODUCT)


def contract(spec: str, x: Float[Array, "..."], w: Float[Array, "..."], dtype: jnp.dtype) -> Float32[Array, "..."]:
    """Return `einsum(spec, x, w)` in float32 with both inputs rounded to `dtype`, forward and backward.

    Rounding inputs and accumulating in float32 is what matrix units do natively; asking for a bfloat16 result
    instead is slower on CPUs and less exact everywhere. Every index must occur in exactly two of x, w, result.
    """
    return _product(spec, x.astype(jnp.float32), w.astype(jnp.float32), dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _product(spec: str, x: jax.Array, w: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return _einsum(spec, x.astype(dtype), w.astype(dtype))


def _product_forward(
    spec: str, x: jax.Array, w: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    types = jnp.zeros((0,), x.dtype), jnp.zeros((0,), w.dtype)  # a cotangent has the type of its input
    x, w = x.astype(dtype), w.astype(dtype)
    return _einsum(spec, x, w), (integer_bits(x), integer_bits(w), *types)


def _product_backward(
    spec: str, dtype: jnp.dtype, saved: tuple[jax.Array, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = (from_integer_bits(kept, dtype) for kept in saved[:2])
    x_type, w_type = (like.dtype for like in saved[2:])
    inputs, result = spec.split("->")
    left, right = inputs.split(",")
    cotangent = cotangent.astype(dtype)
    x_cotangent = _einsum(f"{result},{right}->{left}", cotangent, w)
    return x_cotangent.astype(x_type), contract_rows(left, x, result, cotangent, right).astype(w_type)


def _einsum(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return einsum(spec, x, y, preferred_element_type=jnp.float32)


_product.defvjp(_product_forward, _product_backward)


def integer_bits(x: Float[Array, "*any"]) -> Shaped[Array, "*any"]:
    """Return the bits of a bfloat16 array [...] as uint16, for loops that read or write slices of it; others as is.

    XLA for CPUs writes a slice of a bfloat16 array, as a scan does that keeps an activation of every layer, by
    converting the whole array to float32 and back, and converts the whole to read a slice; integers it takes as is.
    """
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_integer_bits(x: Shaped[Array, "*any"], dtype: jnp.dtype) -> Float[Array, "*any"]:
    """Return the array [...] that `integer_bits` was given; `dtype` was its type if it was bfloat16."""
    return jax.lax.bitcast_convert_type(x, dtype) if x.dtype == jnp.uint16 else x


SHORT = 128  # rows, up to which a sum is bound by reading and writing memory


def contract_rows(
    left: str, x: Float[Array, "..."], right: str, y: Float[Array, "..."], result: str
) -> Float32[Array, "..."]:
    """Return `einsum(left,right->result)` in float32, the gradient of a weight: x and y share their leading indices.

    Matrix units of accelerators take any order; the rest is for CPUs.

    An index that is summed over alone is split in two. The sum is the same, but XLA for CPUs then transposes the first
    factor in memory and uses its fast bfloat16 product; a product that contracts one leading index of both sides is
    rounded up to float32 instead and takes up to four times as long. The smaller factor comes first.

    A short sum, as experts have that get few rows each, spends its time on the result, which is then to be written
    once and not to be turned: float32 is as fast, or the longer rows of x are turned instead.
    """
    if is_explicit() or platform() != "cpu":
        return _einsum(f"{left},{right}->{result}", x, y)
    summed = [index for index in left if index in right and index not in result]
    short = len(summed) == 1 and x.shape[left.index(summed[0])] <= SHORT
    if len(summed) == 1:
        if x.shape[left.index(summed[0])] % 2 or (short and x.size <= y.size):
            return jnp.einsum(f"{left},{right}->{result}", x.astype(jnp.float32), y.astype(jnp.float32))
        x, left = _halve(x, left, summed[0])
        y, right = _halve(y, right, summed[0])
    batch = "".join(index for index in result if index in left and index in right)
    mine, other = ("".join(index for index in result if index in side and index not in batch) for side in (left, right))
    size = dict(zip(left, x.shape, strict=True)) | dict(zip(right, y.shape, strict=True))
    rows, columns = (math.prod(size[index] for index in side) for side in (other, mine))
    if short:
        order = f"{batch}Z{mine}{summed[0]}"
        x, left = jax.lax.optimization_barrier(jnp.einsum(f"{left}->{order}", x)), order
    if short or x.size <= y.size or rows % 2:
        return jnp.einsum(f"{left},{right}->{result}", x, y, preferred_element_type=jnp.float32)
    product = jnp.einsum(f"{right},{left}->{batch}{other}{mine}", y, x, preferred_element_type=jnp.float32)
    flat = _transpose_copy(product.reshape(*(size[index] for index in batch), rows, columns))
    return jnp.einsum(f"{batch}{mine}{other}->{result}", flat.reshape([size[index] for index in batch + mine + other]))


def _halve(x: jax.Array, indices: str, index: str) -> tuple[jax.Array, str]:
    """Split one index of x in two, the new one named Z."""
    at = indices.index(index)
    shape = (*x.shape[:at], 2, x.shape[at] // 2, *x.shape[at + 1 :])
    return x.reshape(shape), f"{indices[:at]}Z{indices[at:]}"


def _transpose_copy(x: jax.Array) -> jax.Array:
    """Transpose the last two dimensions (rows even) as a copy that XLA will not push into the product before."""
    *batch, rows, columns = x.shape
    split = x.reshape(*batch, 2, rows // 2, columns)
    return jnp.moveaxis(split, -1, -3).reshape(*batch, columns, rows)


def hash_integers(x: UInt32[Array, "*any"], seed: UInt32[Array, "2"]) -> UInt32[Array, "*any"]:
    """Return a 32-bit hash [...] of unsigned integers [...] and of a seed [2]."""
    h = x + seed[0]
    h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * np.uint32(0x846CA68B) ^ seed[1]
    h = (h ^ (h >> 16)) * np.uint32(0x7FEB352D)
    return h ^ (h >> 15)


def random_bits(shape: tuple[int, ...], seed: UInt32[Array, "2"]) -> UInt32[Array, "..."]:
    """Return random 32-bit integers: a hash of the element's index and of a seed [2].

    A hash of the index costs a tenth of threefry, fuses with the multiplication that uses it, and gives the same
    numbers however the array is split over devices.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for dimension, size in enumerate(shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, dimension)
    return hash_integers(index, seed)


def uniform(shape: tuple[int, ...], key: PRNGKeyArray) -> Float32[Array, "..."]:
    """Return float32 numbers uniform in [0, 1), cheaply, where quality does not matter: dropout, jitter, masks."""
    return (random_bits(shape, jax.random.bits(key, (2,), jnp.uint32)) >> 8).astype(jnp.float32) * np.float32(2**-24)


def _keep_mask(shape: tuple[int, ...], seed: UInt32[Array, "2"], rate: float) -> Bool[Array, "..."]:
    """Return a Bernoulli(1 - rate) mask for a seed [2]."""
    return random_bits(shape, seed) >= np.uint32(round(rate * 2**32))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x: jax.Array, seed: jax.Array, rate: float) -> jax.Array:
    return jnp.where(_keep_mask(x.shape, seed, rate), x * (1 / (1 - rate)), 0.0)


def _drop_forward(x: jax.Array, seed: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    return _drop(x, seed, rate), seed


def _drop_backward(rate: float, seed: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, np.ndarray]:
    return _drop(cotangent, seed, rate), np.zeros((2,), jax.dtypes.float0)


_drop.defvjp(_drop_forward, _drop_backward)


def dropout(x: Float[Array, "*any"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*any"]:
    """Zero each element with probability `rate` and scale the rest by 1/(1 - rate); without a key, return x.

    The mask is recomputed in the backward pass instead of being kept.
    """
    if key is None or rate == 0.0:
        return x
    return _drop(x, jax.random.bits(key, (2,), jnp.uint32), rate)


def split_key(key: PRNGKeyArray | None, number: int) -> list[PRNGKeyArray | None]:
    """Split a random key; without one, return as many Nones."""
    return [None] * number if key is None else list(jax.random.split(key, number))
