"""The size of a run before it starts: parameters, active parameters, and memory."""

import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import Recipe, VocabularySizes
from nmt.models.activations import is_gated
from nmt.models.building import abstract_model, count_parameters
from nmt.train.accumulation import gradient_bytes
from nmt.train.optimizer import make_optimizer
from nmt.train.schedules import make_schedule

FLOAT = 4  # bytes
_FOR_WEIGHTS = 0.8  # share of the memory of a host's devices; the rest is for decoding


@dataclass(frozen=True)
class ModelSize:
    """Parameters, and bytes of memory over all devices."""

    parameters: int
    active: int  # parameters that one token uses
    weights: int  # bytes, with their moving average
    optimizer: int  # bytes
    gradients: int  # bytes
    activations: int  # bytes, an estimate

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.optimizer + self.gradients + self.activations


def measure(recipe: Recipe, vocabulary: VocabularySizes) -> ModelSize:
    """Return the size of a run; nothing is allocated.

    Activations are an estimate: the values of every layer kept for the backward pass, and the logits with their
    gradient, for the rows of a micro-batch. With `train.accumulate` there are the gradients of a micro-batch and a sum.
    """
    _, parameters = abstract_model(recipe.model, vocabulary)
    total, active = count_parameters(recipe.model, parameters)
    weight = jnp.dtype(recipe.model.parameter_dtype).itemsize
    return ModelSize(
        parameters=total,
        active=active,
        weights=total * (weight + (0 if recipe.train.ema_decay is None else FLOAT)),
        optimizer=FLOAT * _optimizer_state(recipe, parameters),
        gradients=gradient_bytes(recipe, total * weight),
        activations=_activations(recipe, vocabulary.target),
    )


def too_large(recipe: Recipe, vocabulary: VocabularySizes) -> str | None:
    """Return the reason why the weights do not fit this host's devices with room for decoding; None: they fit."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    # The devices that a CPU pretends to be share its memory, and have nothing to say of it.
    room = sum(limits) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    weights = FLOAT * measure(recipe, vocabulary).parameters
    if weights <= _FOR_WEIGHTS * room:
        return None
    return f"the weights have {weights / 2**30:,.1f} GiB, the devices of this host {room / 2**30:,.1f} GiB"


def _optimizer_state(recipe: Recipe, parameters: nnx.State) -> int:
    """Return the number of elements in the optimizer's state."""
    optimizer = make_optimizer(recipe.train.optimizer, make_schedule(recipe.train.schedule, recipe.train.steps))
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, parameters)))


def _activations(recipe: Recipe, vocabulary: int) -> int:
    model, data = recipe.model, recipe.data
    rows = recipe.rows // recipe.train.accumulate
    heads = model.heads * model.head_width
    inner = 3 if is_gated(model.activation) else 2
    slots = 1.0 if model.moe is None else max(1.0, model.moe.capacity_factor)

    def layer(length: int, memory: int, attentions: int) -> float:
        attention = attentions * (4 * model.width + 4 * heads + 2 * model.heads * memory)
        return rows * length * (attention + 2 * model.width + slots * (model.width + inner * model.hidden))

    source, target = data.source_length, data.target_length
    encoder = model.encoder_layers * layer(source, source, 1)
    decoder = model.decoder_layers * layer(target, max(source, target), 2)
    logits = 2 * rows * target * vocabulary
    return int(FLOAT * (encoder + decoder + logits))
