"""Kernels against what JAX offers: dropout by a hash of the index, weight gradients in bfloat16, grouped products.

python benchmarks/kernels.py

Prints the best of many runs of each, in milliseconds, and the ratio to what would be written without them: for grouped
products that is `jax.lax.ragged_dot`, and how many times as long they take as a batched product of equally many rows.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nmt.models.moe.grouped import Blocks, block_rows, grouped_product, most_rows
from nmt.models.numerics import contract_rows, dropout

RUNS = 60
CPU, ACCELERATOR = (4096, 256, 1024), (32768, 1024, 4096)  # rows, and the sizes of the weights of an expert


def best(function: Callable[..., jax.Array], *arguments: jax.Array, runs: int = RUNS) -> float:
    """Return the shortest of many runs in milliseconds, compilation aside."""
    compiled = jax.jit(function)
    compiled(*arguments).block_until_ready()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        compiled(*arguments).block_until_ready()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def plain_dropout(x: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 0.9, x.shape), x / 0.9, 0.0)


def plain_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum("rm,rh->mh", x, y, preferred_element_type=jnp.float32)


def show(name: str, ours: float, theirs: float) -> None:
    print(f"{name:44s} {ours:7.2f} ms  against {theirs:7.2f} ms  ratio {theirs / ours:5.2f}")


def show_grouped(experts: int) -> None:
    """Multiply rows that are sorted by expert, equally many for each."""
    number, inner, outer = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    key = jax.random.key(0)
    x = jax.random.normal(key, (number, inner)).astype(jnp.bfloat16)
    weights = jax.random.normal(key, (experts, inner, outer)).astype(jnp.bfloat16)
    size = min(block_rows(number, experts, most_rows()), number // experts)
    blocks = Blocks(jnp.arange(number // size, dtype=jnp.int32) * experts * size // number, jnp.int32(number // size))
    sizes = jnp.full((experts,), number // experts, jnp.int32)

    def ours(x: jax.Array, weights: jax.Array) -> jax.Array:
        return grouped_product(x.reshape(-1, size, inner), weights, blocks, jnp.dtype(jnp.bfloat16))

    def ragged(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(x, weights, sizes, preferred_element_type=jnp.float32)

    def batched(x: jax.Array, weights: jax.Array) -> jax.Array:
        rows = x.reshape(experts, -1, inner)
        return jnp.einsum("eri,eio->ero", rows, weights, preferred_element_type=jnp.float32)

    name, runs = f"grouped [{number},{inner}]x[{experts},{inner},{outer}]", 5
    mine, equal = best(ours, x, weights, runs=runs), best(batched, x, weights, runs=runs)
    show(name, mine, best(ragged, x, weights, runs=runs))
    print(f"{'':44s} {mine / equal:.2f} times as long as batched ({equal:.2f} ms)")


def main() -> None:
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    key = jax.random.key(0)
    x = jax.random.normal(key, (4096, 1024))
    show(
        "dropout [4096,1024], against threefry",
        best(lambda x, key: dropout(x, 0.1, key), x, key),
        best(plain_dropout, x, key),
    )
    left = jax.random.normal(key, (2048, 256)).astype(jnp.bfloat16)
    right = jax.random.normal(key, (2048, 1024)).astype(jnp.bfloat16)
    show(
        "x^T dy [256,2048]x[2048,1024], against einsum",
        best(lambda x, y: contract_rows("rm", x, "rh", y, "mh"), left, right),
        best(plain_gradient, left, right),
    )
    for experts in (8, 32) if jax.default_backend() == "cpu" else (8, 32, 128):
        show_grouped(experts)


if __name__ == "__main__":
    main()
