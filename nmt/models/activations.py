"""Activations of feed-forward layers and experts (Shazeer 2020, arXiv:2002.05202, for the gated ones)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

# `gelu` is x * Phi(x) itself; T5 1.1's `gated-gelu` has the approximation by tanh, which published weights expect.
_PLAIN: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
_GATED: dict[str, Callable[[jax.Array], jax.Array]] = {
    "geglu": functools.partial(jax.nn.gelu, approximate=True),
    "swiglu": jax.nn.silu,
}


def is_gated(name: str) -> bool:
    """Return whether an activation multiplies two input products, and so needs a second weight."""
    return name in _GATED


def activate(
    name: str, hidden: Float[Array, "*any H"], gate: Float[Array, "*any H"] | None = None
) -> Float32[Array, "*any H"]:
    """Return the activated hidden units, float32.

    Args:
      name: relu, gelu, geglu or swiglu.
      hidden: [...,H], the product with `wi`.
      gate: [...,H], the product with `wg`, for geglu and swiglu: f(gate) * hidden.
    """
    hidden = hidden.astype(jnp.float32)
    if gate is None:
        return _PLAIN[name](hidden)
    return _GATED[name](gate.astype(jnp.float32)) * hidden
