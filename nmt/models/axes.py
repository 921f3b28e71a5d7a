"""The logical axes that every array of a model carries, and functions over trees of such arrays."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from flax import nnx

Axes: TypeAlias = tuple[str | None, ...]
NamedArray: TypeAlias = nnx.Variable[Any]  # an array with its logical axes


def logical_axes(variable: NamedArray) -> Axes:
    """Return the logical axis of each dimension of an array; None for one without a name."""
    axes: Axes = variable.get_metadata()["logical_axes"]
    return axes


def map_variables(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a function to corresponding arrays of trees, each an `nnx.Variable` with its logical axes."""
    return jax.tree.map(function, *trees, is_leaf=lambda x: isinstance(x, nnx.Variable))
