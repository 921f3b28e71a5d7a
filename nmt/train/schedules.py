"""The learning rate over the steps."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Shaped

from nmt.config import ScheduleConfig

Schedule = Callable[[Int[Array, "..."]], Float32[Array, "..."]]


def make_schedule(config: ScheduleConfig, steps: int) -> Schedule:
    """Return the learning rate as a function of the step, counted from 0: linear warm-up, then the decay.

    With t = step + 1, w = `warmup_steps` (at least 1) and T = `steps`, warm-up is from + (peak - from) t / w, and then

    * rsqrt, inverse_sqrt: peak sqrt(w / t) (Vaswani et al. 2017, section 5.3);
    * constant_rsqrt: the same, but peak during warm-up (GShard, appendix A.2: peak 0.01, w 10,000);
    * linear, cosine: to zero at T;
    * wsd: peak, and over the last `cooldown` T steps linear to zero at T (Hu et al. 2024, arXiv:2404.06395); the
      cool-down never begins before the end of warm-up;
    * constant: peak.
    """
    warmup, peak = max(config.warmup_steps, 1), config.learning_rate

    def decayed(now: Float32[Array, "*any"]) -> Float32[Array, "*any"]:
        match config.name:
            case "rsqrt" | "inverse_sqrt" | "constant_rsqrt":
                return peak * jnp.sqrt(warmup / jnp.maximum(now, warmup))
            case "constant":
                return jnp.full_like(now, peak)
            case "wsd":
                return peak * _remaining(now, steps, min(config.cooldown * steps, steps - warmup))
            case "linear":
                return peak * _remaining(now, steps, steps - warmup)
            case "cosine":
                return peak * (0.5 - 0.5 * jnp.cos(jnp.pi * _remaining(now, steps, steps - warmup)))

    def rate(step: Shaped[Array, "*any"]) -> Float32[Array, "*any"]:
        now = jnp.asarray(step, jnp.float32) + 1.0
        if config.name == "constant_rsqrt":
            return decayed(now)
        rising = config.warmup_from + (peak - config.warmup_from) * now / warmup
        return jnp.where(now < warmup, rising, decayed(now))

    return rate


def _remaining(now: Float32[Array, "*any"], steps: int, length: float) -> Float32[Array, "*any"]:
    """Return the rest of a linear decay over `length` steps that ends at `steps`: 1 before it begins, 0 at its end."""
    return jnp.clip((steps - now) / max(length, 1), 0.0, 1.0)
