"""The one table that maps logical axes to mesh axes."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt.errors import UserError

RULES: dict[str, tuple[str, ...] | str | None] = {
    # Activations. GShard splits the batch over the devices that hold the experts (section 3.1), so that moving
    # from "tokens of my rows" to "tokens of my experts" is one all-to-all.
    "batch": ("data", "expert"),
    "group": ("data", "expert"),
    "length": None,
    "expert_group": "data",  # groups, in arrays that are already split over experts
    # Parameters, and activations of the same meaning.
    "layers": None,
    "vocab": "model",
    "embed": None,
    "heads": "model",
    "mlp": "model",
    "expert": "expert",
}

# What a recipe calls the size of an axis that a mesh may have to divide.
SIZES = {
    "batch": "train.tokens_per_batch / (row length * train.accumulate)",
    "vocab": "vocab.size or vocab.target_size",
    "heads": "model.heads",
    "mlp": "model.hidden",
    "expert": "model.moe.experts",
}


def partition_spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Return the mesh axes for the logical axes of an array; None is an axis that is never split.

    Raises:
      KeyError: an axis is not in `RULES`.
    """
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def named_sharding(mesh: Mesh, axes: tuple[str | None, ...], shape: Sequence[int]) -> NamedSharding:
    """Return where an array of a shape lives that has these logical axes.

    Raises:
      KeyError: an axis is not in `RULES`.
      UserError: the devices along a mesh axis do not divide a dimension that is split over them.
    """
    spec = partition_spec(axes)
    for axis, size, split in zip(axes, shape, spec, strict=True):
        names = (split,) if isinstance(split, str) else split or ()
        parts = math.prod(mesh.shape[name] for name in names)
        if axis is not None and size % parts:
            over = " * ".join(f"mesh.{name}={mesh.shape[name]}" for name in names if mesh.shape[name] > 1)
            raise UserError(
                f"{SIZES.get(axis, axis)} is {size}, which {over} does not divide: choose a multiple of {parts}, "
                "or another mesh"
            )
    return NamedSharding(mesh, spec)
