"""GShard's three annotations (arXiv:2006.16668, section 3.2), over `jax.sharding`.

The paper's form takes numbers: `split(x, dimension, partitions)` and `shard(x, device_assignment)`. Model code takes
logical axes instead, `shard(x, "batch", "length", None)`, and leaves the numbers to the mesh. Both place an array and
leave its values alone; without a mesh, or on one device, they return the array as it is.

On an Auto mesh an annotation is a constraint, from which XLA infers the placement of arrays without one. On an
Explicit mesh the type of every array has its placement, an annotation moves it there, and a product of two arrays
whose placements clash is an error when the program is traced.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, PartitionSpec, get_abstract_mesh

from nmt.sharding.axes import LOGICAL_AXES, Axes, check_divisible, partition_spec

F = TypeVar("F", bound=Callable[..., Any])
Spec = str | None | PartitionSpec | np.ndarray


def replicate(x: jax.Array) -> jax.Array:
    """Keep a whole copy of the array on every device (GShard's `replicate`)."""
    mesh = _mesh()
    return x if mesh is None else _put(x, PartitionSpec(*[None] * x.ndim), mesh)


def split(x: jax.Array, dimension: int, partitions: int | str) -> jax.Array:
    """Split one dimension of an array; the others stay whole (GShard's `split`).

    Args:
      x: the array.
      dimension: which one.
      partitions: how many parts, the product of the sizes of some axes of the mesh; or a logical axis.

    Raises:
      ValueError: there is no such dimension, or the mesh has no axes, or several choices of axes, with that product.
      UserError: the parts do not divide the dimension.
    """
    if not -x.ndim <= dimension < x.ndim:
        raise ValueError(f"dimension {dimension} of an array of shape {x.shape}")
    parts: list[Any] = [None] * x.ndim
    parts[dimension] = partitions
    if isinstance(partitions, str):
        return shard(x, *parts)
    if (mesh := _mesh()) is None:
        return x
    parts[dimension] = _axes_of_product(mesh, partitions)
    return _put(x, PartitionSpec(*parts), mesh)


def shard(x: jax.Array, *spec: Spec) -> jax.Array:
    """Split several dimensions of an array (GShard's `shard`).

    Args:
      x: the array.
      spec: the logical axis of each dimension, None for one that is never split. Or one thing: a `PartitionSpec` over
        mesh axes; or GShard's device assignment, an integer array with a dimension for each of x. Its shape is the
        number of parts along each dimension, its elements are the devices that hold them, by their place in the mesh.

    Raises:
      ValueError: the dimensions are not as many as those of x, or no placement on the mesh is such an assignment.
      KeyError: a name is not a logical axis.
      UserError: the parts do not divide the array.
    """
    if len(spec) == 1 and isinstance(spec[0], PartitionSpec | np.ndarray):
        return _shard_over_mesh(x, spec[0])
    return _shard(x, tuple(axis for axis in spec if axis is None or isinstance(axis, str)), stored=False)


def store(x: jax.Array, *axes: str | None) -> jax.Array:
    """Split a weight, or optimizer state of one, as it is stored between its uses.

    `shard` splits it as it is used: dimensions that only the stored form splits are gathered.
    """
    return _shard(x, axes, stored=True)


def left_to_xla(function: F, *axes: Axes) -> F:
    """Return a function inside of which XLA places arrays, also on an Explicit mesh; on others, the function.

    For gathers and scatters, whose placement JAX does not derive.

    Args:
      function: the function.
      axes: the logical axes of each result, of the one result if there is one.
    """
    if not is_explicit():
        return function

    @functools.wraps(function)
    def placed(*arguments: Any) -> Any:
        bare = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
        with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
            results = jax.eval_shape(function, *bare)
        shapes = [result.shape for result in (results if isinstance(results, tuple) else (results,))]
        specs = [_splittable(partition_spec(names), shape) for names, shape in zip(axes, shapes, strict=True)]
        out = tuple(specs) if isinstance(results, tuple) else specs[0]
        return jax.sharding.auto_axes(function, out_sharding=out)(*arguments)

    return cast(F, placed)


def is_explicit() -> bool:
    """Return whether the mesh is Explicit: the type of an array then contains its placement."""
    mesh = _mesh()
    return mesh is not None and AxisType.Explicit in mesh.axis_types


def einsum(spec: str, x: jax.Array, y: jax.Array, **options: Any) -> jax.Array:
    """Return `jnp.einsum(spec, x, y)`, on an Explicit mesh with an explicit placement of the result.

    Every index of the result is split as in the argument that it comes from. A sum over a split index is an all-reduce
    over its devices, and JAX alone does not know where its result is wanted.
    """
    if is_explicit():
        options["out_sharding"] = _placed_product(spec, x, y)
    return jnp.einsum(spec, x, y, **options)


def _placed_product(spec: str, x: jax.Array, y: jax.Array) -> PartitionSpec:
    inputs, result = spec.split("->")
    split: dict[str, Any] = {}
    for indices, array in zip(inputs.split(","), (x, y), strict=True):
        parts = jax.typeof(array).sharding.spec
        for index, names in zip(indices, (*parts, *[None] * (array.ndim - len(parts))), strict=True):
            split[index] = split.get(index) or names
    return _without_repeats([split[index] for index in result])


def _without_repeats(parts: Sequence[Any]) -> PartitionSpec:
    """Return a spec in which a mesh axis splits the first dimension that asks for it."""
    taken: set[str] = set()
    spec = []
    for part in parts:
        names = tuple(name for name in ((part,) if isinstance(part, str) else part or ()) if name not in taken)
        taken |= set(names)
        spec.append(names or None)
    return PartitionSpec(*spec)


def _mesh() -> AbstractMesh | None:
    """Return the mesh that is set; None where annotations have no effect: no mesh, or a single device."""
    mesh = get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else mesh


def _put(x: jax.Array, spec: PartitionSpec, mesh: AbstractMesh, axes: Axes | None = None) -> jax.Array:
    spec = _splittable(spec, x.shape)
    check_divisible(dict(mesh.shape), axes, spec, x.shape)
    if AxisType.Explicit in mesh.axis_types:
        return jax.sharding.reshard(x, spec)
    return jax.lax.with_sharding_constraint(x, spec)


def _splittable(spec: PartitionSpec, shape: Sequence[int]) -> PartitionSpec:
    """Return a spec that leaves dimensions of one element whole."""
    return PartitionSpec(*(None if size == 1 else part for part, size in zip(spec, shape, strict=True)))


def shard_count(axis: str) -> int:
    """Return the number of shards into which the mesh splits a logical axis; 1 without a mesh.

    Raises:
      KeyError: the name is not a logical axis.
    """
    if (mesh := _mesh()) is None:
        return 1
    (over,) = partition_spec((axis,))
    names = (over,) if isinstance(over, str) else over or ()
    return math.prod(mesh.shape[name] for name in names)


def _shard(x: jax.Array, axes: Axes, stored: bool) -> jax.Array:
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes {axes} for an array of shape {x.shape}")
    for axis in axes:
        if axis is not None and axis not in LOGICAL_AXES:
            raise KeyError(axis)
    mesh = _mesh()
    return x if mesh is None else _put(x, partition_spec(axes, stored), mesh, axes)


def _shard_over_mesh(x: jax.Array, spec: PartitionSpec | np.ndarray) -> jax.Array:
    if np.ndim(spec) != x.ndim if isinstance(spec, np.ndarray) else len(spec) > x.ndim:
        raise ValueError(f"{spec!r} for an array of shape {x.shape}")
    if (mesh := _mesh()) is None:
        return x
    if isinstance(spec, np.ndarray):
        spec = _assignment_spec(spec, mesh)
    return _put(x, PartitionSpec(*spec, *[None] * (x.ndim - len(spec))), mesh)


def _axes_of_product(mesh: AbstractMesh, partitions: int) -> tuple[str, ...]:
    """Return the mesh axes whose sizes multiply to a number of partitions."""
    sizes = {name: size for name, size in mesh.shape.items() if size > 1}
    found = [
        names
        for number in range(len(sizes) + 1)
        for names in itertools.combinations(sizes, number)
        if math.prod(sizes[name] for name in names) == partitions
    ]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    which = f"{' or '.join(' * '.join(names) for names in found)}?" if found else "no axes have that product"
    raise ValueError(f"{partitions} partitions over a mesh of {shown}: {which}")


def _assignment_spec(assignment: np.ndarray, mesh: AbstractMesh) -> PartitionSpec:
    """Return the mesh axes that place parts as a device assignment says."""
    sizes = {name: size for name, size in mesh.shape.items() if size > 1}
    devices = np.arange(mesh.size).reshape(tuple(sizes.values()))
    for order in itertools.permutations(range(len(sizes))):
        names = [list(sizes)[i] for i in order]
        if (spec := _divided(assignment.shape, names, sizes)) is None:
            continue
        if np.array_equal(devices.transpose(order).reshape(assignment.shape), assignment):
            return spec
    shown = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    raise ValueError(
        f"the device assignment {assignment.tolist()}, {' x '.join(map(str, assignment.shape))} parts, is no placement "
        f"on a mesh of {shown}"
    )


def _divided(parts: Sequence[int], names: Sequence[str], sizes: dict[str, int]) -> PartitionSpec | None:
    """Assign mesh axes, in this order, to dimensions with so many parts each; None if they do not fit."""
    left, spec = list(names), []
    for wanted in parts:
        mine: list[str] = []
        while left and math.prod(sizes[name] for name in mine) < wanted:
            mine.append(left.pop(0))
        if math.prod(sizes[name] for name in mine) != wanted:
            return None
        spec.append(tuple(mine) or None)
    return None if left else PartitionSpec(*spec)
