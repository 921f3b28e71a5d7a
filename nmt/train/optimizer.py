"""Optimizers, composed from Optax and our own Adafactor."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nmt.config import OptimizerConfig
from nmt.models.axes import NamedArray, logical_axes, map_variables
from nmt.train.adafactor import root_mean_square, scale_by_adafactor
from nmt.train.schedules import Schedule


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """Return the optimizer: clipping, then the update rule, then decoupled weight decay, then the learning rate.

    * adam: Kingma and Ba 2015, with weight decay AdamW (Loshchilov and Hutter 2019);
    * adafactor: `nmt.train.adafactor`; its updates are multiplied by the scale of the parameter, so its learning rates
      are relative, near 1e-2;
    * lamb: Adam's update and the weight decay, scaled to the norm of the parameter (You et al. 2020, Algorithm 2);
    * lion: the sign of a momentum (Chen et al. 2023, Algorithm 2).

    Adafactor and LAMB need parameters that carry their logical axes, `nnx.Variable`.
    """
    clip = [] if config.clip_norm is None else [_clip_by_global_norm(config.clip_norm)]
    decay = [optax.add_decayed_weights(config.weight_decay)] if config.weight_decay else []
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    match config.name:
        case "adam":
            rule = [adam, *decay]
        case "adafactor":
            rule = [scale_by_adafactor(config), *decay]
        case "lamb":
            rule = [adam, *decay, _scale_by_trust_ratio()]
        case "lion":
            rule = [optax.scale_by_lion(b1=config.beta1, b2=config.beta2), *decay]
    return optax.chain(*clip, *rule, optax.scale_by_learning_rate(schedule))


def global_norm(gradients: Any) -> Float[Array, ""]:
    """Return the norm of all arrays together.

    Its squares are computed apart from those of the optimizer: XLA for CPUs would share them with Adam, and so write
    them to memory as one more array of the size of the model that both then read.
    """
    norm: Array = optax.tree.norm(jax.tree.map(jax.lax.optimization_barrier, gradients))
    return norm


def _clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """Return the clipping of gradients to a norm, all arrays together, as one multiplication.

    Optax divides every element, which XLA for CPUs will not repeat for each use of the gradient: it keeps the clipped
    gradient as another array, and the optimizer is bound by memory.
    """

    def update(gradients: Any, state: optax.OptState, parameters: Any) -> tuple[Any, optax.OptState]:
        factor = jnp.minimum(1.0, most / global_norm(gradients))
        return jax.tree.map(lambda gradient: gradient * factor, gradients), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    """Return LAMB's last step: the update of a layer gets the norm of the layer's parameter.

    Optax has it for whole arrays, which here are stacks of layers and experts. As Optax does, a ratio that would be
    zero or infinite is 1.
    """

    def scaled(update: NamedArray, parameter: NamedArray) -> NamedArray:
        axes = logical_axes(parameter)
        its, wanted = root_mean_square(update.get_value(), axes), root_mean_square(parameter.get_value(), axes)
        usable = (its > 0.0) & (wanted > 0.0)
        ratio: Array = jnp.where(usable, wanted / jnp.where(usable, its, 1.0), 1.0)
        return update.replace(update.get_value() * ratio)

    def update(updates: Any, state: optax.OptState, parameters: Any) -> tuple[Any, optax.OptState]:
        return map_variables(scaled, updates, parameters), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
