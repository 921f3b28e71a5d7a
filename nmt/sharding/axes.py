"""Logical axes, and the table that maps them to the axes of the mesh.

The table comes from a preset (recipes/meshes/NAME.yaml) and is in force inside `Layout.use`. It is a JAX user context:
a part of the key of every `jit` cache, so a function that was traced under one table is traced anew under another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt.errors import UserError

Axes = tuple[str | None, ...]  # of an array: the logical axis of each dimension; None is never split

# Every logical axis, and the size of such a dimension in terms of the recipe's keys, for error messages.
LOGICAL_AXES = {
    # Activations.
    "batch": "train.tokens_per_batch / (row length * train.accumulate)",
    "length": "data.source_length or data.target_length",
    "group": "the number of groups, tokens of a batch / model.moe.group_size,",
    "expert_group": "the number of groups, tokens of a batch / model.moe.group_size,",  # in arrays split over experts
    # Parameters, and activations of the same meaning.
    "layers": "the number of scanned blocks of layers",
    "vocab": "vocab.size or vocab.target_size",
    "embed": "model.width",
    "heads": "model.heads",
    "mlp": "model.hidden",
    "expert": "model.moe.experts",
}


@dataclass(frozen=True)
class AxisRules:
    """A table from logical axes to mesh axes; hashable, as the key of a cache must be."""

    preset: str  # for messages
    used: tuple[tuple[str, tuple[str, ...]], ...]  # (logical axis, mesh axes) of arrays in use
    stored: tuple[tuple[str, tuple[str, ...]], ...] = ()  # of weights between uses, where they differ

    def mesh_axes(self, axis: str | None, stored: bool = False) -> tuple[str, ...]:
        """Return the mesh axes that a logical axis is split over, outermost first.

        Raises:
          KeyError: there is no such logical axis.
        """
        if axis is None:
            return ()
        if axis not in LOGICAL_AXES:
            raise KeyError(axis)
        table = dict(self.used) | (dict(self.stored) if stored else {})
        return table.get(axis, ())

    def spec(self, axes: Axes, stored: bool = False) -> PartitionSpec:
        """Return the mesh axes of each dimension of an array; see `partition_spec`."""
        taken: set[str] = set()
        parts: list[str | tuple[str, ...] | None] = []
        for axis in axes:
            names = tuple(name for name in self.mesh_axes(axis, stored) if name not in taken)
            taken |= set(names)
            parts.append(names[0] if len(names) == 1 else names or None)
        return PartitionSpec(*parts)


rules_context = jax.make_user_context(None)


def active_rules() -> AxisRules | None:
    """Return the table in force, None outside of `Layout.use`."""
    rules: AxisRules | None = rules_context.value
    return rules


def partition_spec(axes: Axes, stored: bool = False) -> PartitionSpec:
    """Return the mesh axes for the logical axes of an array, by the table in force.

    A mesh axis splits one dimension of an array, the first that asks for it.

    Args:
      axes: logical axis of each dimension.
      stored: whether the array is a weight between its uses.

    Raises:
      KeyError: a name is not a logical axis.
      RuntimeError: no table is in force.
    """
    rules = active_rules()
    if rules is None:
        raise RuntimeError("no table of logical axes is in force: annotate inside `with layout.use():`")
    return rules.spec(axes, stored)


def named_sharding(mesh: Mesh, axes: Axes, shape: Sequence[int]) -> NamedSharding:
    """Return the placement, between its uses, of a weight with these logical axes and this shape.

    Raises:
      KeyError: a name is not a logical axis.
      RuntimeError: there are several devices, and no table is in force.
      UserError: the devices along a mesh axis do not divide a dimension that is split over them.
    """
    if mesh.size == 1 and active_rules() is None:
        return NamedSharding(mesh, PartitionSpec(*(None for _ in axes)))
    spec = partition_spec(axes, stored=True)
    check_divisible(dict(mesh.shape), axes, spec, shape)
    return NamedSharding(mesh, spec)


def check_divisible(sizes: dict[str, int], axes: Axes | None, spec: PartitionSpec, shape: Sequence[int]) -> None:
    """Check that a spec divides an array.

    Raises:
      UserError: it does not; the message has the numbers.
    """
    for i, (size, split) in enumerate(zip(shape, spec, strict=True)):
        names = (split,) if isinstance(split, str) else split or ()
        parts = math.prod(sizes[name] for name in names)
        if size % parts:
            over = " * ".join(f"mesh.{name}={sizes[name]}" for name in names if sizes[name] > 1)
            axis = axes[i] if axes else None
            what = f"dimension {i} of an array {tuple(shape)}" if axis is None else LOGICAL_AXES[axis]
            raise UserError(
                f"{what} is {size}, which {over} does not divide: choose a multiple of {parts}, or another mesh"
            )
