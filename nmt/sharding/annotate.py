"""GShard's three annotations, over `jax.sharding` (GShard, section 3.2)."""

import math

import jax
from jax.sharding import PartitionSpec, get_abstract_mesh

from nmt.sharding.axes import LOGICAL_AXES, partition_spec


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, spec)


def _alone() -> bool:
    """Return whether there is no mesh, or one of one device: an annotation then has nothing to say."""
    mesh = get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def parts(axis: str) -> int:
    """Return in how many parts the mesh splits a logical axis; 1 without a mesh.

    Raises:
      KeyError: the name is not a logical axis.
    """
    mesh = get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return 1
    (split,) = partition_spec((axis,))
    names = (split,) if isinstance(split, str) else split or ()
    return math.prod(mesh.shape[name] for name in names)


def shard(x: jax.Array, *axes: str | None) -> jax.Array:
    """Annotate an array with the logical axis of each dimension; None is a dimension that is never split.

    Raises:
      ValueError: the number of names differs from the number of dimensions.
      KeyError: a name is not a logical axis.
    """
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes {axes} for an array of shape {x.shape}")
    for axis in axes:
        if axis is not None and axis not in LOGICAL_AXES:
            raise KeyError(axis)
    return x if _alone() else _constrain(x, partition_spec(axes))


def split(x: jax.Array, dimension: int, axis: str) -> jax.Array:
    """Split one dimension over the mesh axes of a logical axis; the others stay whole (GShard's `split`)."""
    names: list[str | None] = [None] * x.ndim
    names[dimension] = axis
    return shard(x, *names)


def replicate(x: jax.Array) -> jax.Array:
    """Keep a whole copy of the array on every device (GShard's `replicate`)."""
    return x if _alone() else _constrain(x, PartitionSpec())
