"""The check of shapes that the import hook of `conftest.py` puts on every function of the rooms that compute.

Only annotations of jaxtyping are checked, at every call, letters being the same throughout it. Anything with a shape
and a type passes for an array: tests hand over NumPy arrays, `jax.eval_shape` and plans arrays without values.

Constructors of dataclasses are not checked. JAX calls them to put trees together again from whatever is at their
leaves: shardings, `None`, arrays with a dimension more. Their fields are checked where functions take them apart.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

__all__ = ["ROOMS", "check", "jaxtyped"]

ROOMS = ("nmt.models", "nmt.train", "nmt.decode")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks the shapes of what it is given, if it says any."""
    if function.__name__ == "__init__":
        return function
    function.__annotations__ = {
        name: _shapes_alone(hint) for name, hint in function.__annotations__.items() if _has_shape(hint)
    }
    return beartype(function) if function.__annotations__ else function


def _is_shape(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, AbstractArray)


def _has_shape(hint: Any) -> bool:
    return _is_shape(hint) or any(map(_has_shape, get_args(hint)))


def _shapes_alone(hint: Any) -> Any:
    """Return an annotation with everything but shapes, and the containers that hold them, replaced by `Any`."""
    if _is_shape(hint):
        return hint.dtype[Any, hint.dim_str]
    if hint in (None, types.NoneType, ...):
        return hint
    origin = get_origin(hint)
    parts = tuple(map(_shapes_alone, get_args(hint)))
    if origin in (Union, types.UnionType):
        return Union[parts]  # noqa: UP007, of a tuple
    return origin[parts] if origin in (tuple, list, dict) else Any
