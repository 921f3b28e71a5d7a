"""Capacity: the slots that an expert has for a group of tokens, and when it has any."""

import math
from fractions import Fraction

from nmt.config import MoEConfig
from nmt.models.tokens import Phase


def capacity(tokens: int, config: MoEConfig, factor: float | None = None) -> int:
    """Return C, the slots that an expert has for a group of so many tokens (N).

    C = min(N, max(min_capacity, ceil(factor * N / E))); GShard's 2N/E is a factor of 2. More than N slots are of no
    use, since the choices of a token are different experts.

    Args:
      tokens: N.
      config: the layer's configuration.
      factor: the capacity factor; None: that of training.
    """
    factor = config.capacity_factor if factor is None else factor
    return min(tokens, max(config.min_capacity, math.ceil(exact_factor(factor) * tokens / config.experts)))


def exact_factor(factor: float) -> Fraction:
    """Return a factor as it is written: 1.1 is 11/10, and 1.1 * 100 / 10 is 11, not more."""
    return Fraction(str(factor))


def has_capacity(config: MoEConfig, phase: Phase) -> bool:
    """Return whether experts have a capacity in a phase; where they have none, nothing is dropped."""
    return phase is Phase.TRAIN or (phase is Phase.EVALUATE and config.eval_capacity_factor is not None)
