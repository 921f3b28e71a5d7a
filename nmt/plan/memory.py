"""Memory of one device by class: exact from shapes and shardings of arrays, or estimated.

Weights, optimizer and batch are exact but for the padding of tiles. XLA reports only the sum of its temporaries; the
bytes of gradients and of dispatch buffers among them are estimated here, and the rest is called activations.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import Recipe
from nmt.models.moe.capacity import capacity
from nmt.train.accumulation import gradient_bytes
from nmt.train.step import TrainState

EXACT = ("weights", "average", "optimizer", "batch")  # of a train step
ESTIMATED = ("gradients", "dispatch buffers", "activations")


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters."""

    total: int
    active: int  # that one token uses
    per_device: int  # copies included


def bytes_on_device(tree: Any) -> int:
    """Return the bytes that sharded abstract arrays take on one device."""
    return sum(_elements(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def elements_on_device(tree: Any) -> int:
    """Return the elements of sharded abstract arrays that one device holds."""
    return sum(map(_elements, jax.tree.leaves(tree)))


def _elements(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def state_bytes(state: TrainState) -> dict[str, int]:
    """Return the bytes of one device that weights, their average and the optimizer take."""
    return {
        "weights": bytes_on_device(state.parameters),
        "average": bytes_on_device(state.average),
        "optimizer": bytes_on_device(state.optimizer),
    }


def dispatch_buffer_bytes(recipe: Recipe, parameters: nnx.State, devices: int) -> int:
    """Return the bytes on one device of one sparse layer's slots: inputs, hidden units and outputs, once each.

    They are split over all devices, by groups or by experts. In the backward pass there are the gradients of some of
    them as well, and with `model.remat` none, dots or local some of every layer are kept: these are among activations.
    """
    model, moe = recipe.model, recipe.model.moe
    if moe is None:
        return 0
    length = max(recipe.data.source_length, recipe.data.target_length)
    tokens = recipe.rows // recipe.train.accumulate * length
    group = moe.group_size or tokens
    has_slots = moe.dispatch != "grouped"
    slots = tokens // group * moe.experts * capacity(group, moe) if has_slots else tokens * moe.top_k
    size = jnp.dtype(model.activation_dtype).itemsize
    return slots * (2 * model.width * size + model.hidden * size) // devices


def bytes_by_class(recipe: Recipe, state: TrainState, batch: Any, temporaries: int, devices: int) -> dict[str, int]:
    """Return bytes of one device by class, of `EXACT` and `ESTIMATED`."""
    exact = state_bytes(state) | {"batch": bytes_on_device(batch)}
    grads = min(gradient_bytes(recipe, exact["weights"]), temporaries)
    buffers = min(dispatch_buffer_bytes(recipe, state.parameters, devices), temporaries - grads)
    rest = temporaries - grads - buffers
    return exact | {"gradients": grads, "dispatch buffers": buffers, "activations": rest}
