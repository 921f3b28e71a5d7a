"""Noise and masks in mixture-of-experts layers; without a key there are none."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from nmt.models.numerics import uniform
from nmt.models.tokens import Phase, TokenInfo

PASSED_BY = 0x6A17E  # sets the coin of a stack apart from the keys of its blocks, which are numbered from 0


def jittered(x: Float[Array, "*any M"], amount: float, key: PRNGKeyArray | None) -> Float[Array, "*any M"]:
    """Return the router's input times noise uniform in 1 +- amount (Switch, section 2.2)."""
    if key is None or amount == 0.0:
        return x
    return x * (1.0 + amount * (2.0 * uniform(x.shape, key) - 1.0))


def output_mask(shape: tuple[int, ...], rate: float, key: PRNGKeyArray | None) -> Float32[Array, "..."] | float:
    """Return the factor of gates for NLLB's expert output masking (arXiv:2207.04672, section 6.2).

    In training a Bernoulli(1 - rate) mask for every token and choice, without rescaling; without a key its mean.
    """
    if key is None or rate == 0.0:
        return 1.0 - rate
    return (uniform(shape, key) >= rate).astype(jnp.float32)


def open_gates(gate: Float[Array, "*any"], rate: float, key: PRNGKeyArray | None) -> Float[Array, "*any"]:
    """Return gates with a random share of them set to zero, the others left as they are."""
    if key is None or rate == 0.0:
        return gate
    return jnp.where(uniform(gate.shape, key) >= rate, gate, 0.0)


def toss(info: TokenInfo, rate: float, key: PRNGKeyArray | None, phase: Phase) -> TokenInfo:
    """Toss the coin of gating dropout (Liu et al. 2022, arXiv:2205.14336), the same for all layers of a stack.

    Args:
      info: the tokens.
      rate: probability with which the sparse layers pass all tokens by.
      key: the stack's key for this step.
      phase: the coin is tossed in training alone.
    """
    if key is None or rate == 0.0 or phase is not Phase.TRAIN:
        return info
    return replace(info, passed_by=jax.random.bernoulli(jax.random.fold_in(key, PASSED_BY), rate))
