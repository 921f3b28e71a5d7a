"""Two small kernels against what JAX offers: dropout by a hash of the index, and weight gradients in bfloat16.

python benchmarks/kernels.py

Prints the best of many runs of each, in milliseconds, and the ratio to what would be written without them.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from nmt.models.numerics import contract_rows, dropout

RUNS = 60


def best(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """Return the shortest of `RUNS` runs in milliseconds, compilation aside."""
    compiled = jax.jit(function)
    compiled(*arguments).block_until_ready()
    times = []
    for _ in range(RUNS):
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


if __name__ == "__main__":
    main()
