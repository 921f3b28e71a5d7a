"""Optimizers and learning-rate schedules, composed from Optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from nmt.config import OptimizerConfig, ScheduleConfig

Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(config: ScheduleConfig, steps: int) -> Schedule:
    """Return the learning rate as a function of the step, counted from 0: linear warm-up, then the decay.

    rsqrt: peak * sqrt(warmup / step) (Vaswani et al. 2017, section 5.3); linear and cosine: to zero at `steps`.
    """
    warmup = max(config.warmup_steps, 1)
    peak = config.learning_rate

    def rate(step: jax.Array) -> jax.Array:
        now = jnp.asarray(step, jnp.float32) + 1.0
        if config.name == "rsqrt":
            decayed = peak * jnp.sqrt(warmup / jnp.maximum(now, warmup))
        else:
            left = jnp.clip((steps - now) / max(steps - warmup, 1), 0.0, 1.0)
            decayed = peak * (left if config.name == "linear" else 0.5 - 0.5 * jnp.cos(jnp.pi * left))
        return jnp.where(now < warmup, peak * now / warmup, decayed)

    return rate


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """Return the optimizer: clipping, then the update rule, then decoupled weight decay, then the learning rate.

    Adafactor multiplies updates by the scale of the parameter (Shazeer and Stern 2018, section 8): its learning rates
    are relative, near 1e-2.
    """
    clip = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    decay = [optax.add_decayed_weights(config.weight_decay)] if config.weight_decay else []
    if config.name == "adam":
        rule = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    else:
        # Optax's weight decay would come after the learning rate. Its last step is a change of sign, which is undone.
        rule = optax.chain(optax.adafactor(learning_rate=None, momentum=config.beta1 or None), optax.scale(-1.0))
    return optax.chain(*clip, rule, *decay, optax.scale_by_learning_rate(schedule))
