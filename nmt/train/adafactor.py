"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), factored by the names of axes.

A second moment is kept as the means of its rows and of its columns, so that it takes next to no memory. Which axes are
rows and which are columns is decided by what they are called, never by how long they are: of 2048 experts of width 1024
the two longest axes are the experts and the hidden units, and a mean over experts says nothing about one of them.

* `layers` and `expert` are batch axes: a statistic never mixes two layers or two experts. An array of stacked layers
  is updated as the layers would be one by one, an array of experts as that many feed-forward layers would be.
* `embed` is the row axis; `mlp`, `heads` and `vocab`, with axes that have no name (the width of a head; keys and
  values), are together the column axis. Without both, as in norms, biases and routers, the second moment is whole.
* The root mean square by which an update is clipped, and that of the parameter by which it is multiplied, are those of
  one layer and one expert too (T5X does the same, Lingvo takes whole arrays). Clipping is there for second moments that
  are out of date (section 5), and those of an expert are when tokens come to it after a pause: its update is then
  many times too large, which the mean over all experts hardly shows.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Float32, Int32

from nmt.config import OptimizerConfig
from nmt.models.axes import Axes, NamedArray, logical_axes, map_variables

BATCH = ("layers", "expert")
ROWS = ("embed",)
COLUMNS = ("mlp", "heads", "vocab")
SMALL_SQUARE = 1e-30  # added to squared gradients (epsilon 1 of the paper)
SMALL_SCALE = 1e-3  # least scale of a parameter (epsilon 2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Moments of the gradients of one parameter: means of its rows and columns, or the whole, and the momentum.

    All are float32. Second moments are `rows` and `columns`, or `whole`; the others are None.
    """

    rows: NamedArray | None  # the axes of the parameter without columns
    columns: NamedArray | None  # the axes of the parameter without rows
    whole: NamedArray | None  # the axes of the parameter
    momentum: NamedArray | None  # the axes of the parameter; None without beta1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdafactorState:
    """The state of Adafactor."""

    count: Int32[Array, ""]  # updates done
    moments: Any  # a tree like that of the parameters, with `Moments` for leaves


def factoring(axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return which dimensions are rows and which are columns; None where there is no such pair."""
    rows = tuple(i for i, axis in enumerate(axes) if axis in ROWS)
    columns = tuple(i for i, axis in enumerate(axes) if axis in COLUMNS or axis is None)
    named = any(axis in COLUMNS for axis in axes)
    return (rows, columns) if rows and named else None


def root_mean_square(x: Float[Array, "..."], axes: Axes) -> Float32[Array, "..."]:
    """Return the root mean square of each layer and each expert of an array; the other dimensions become 1."""
    inner = tuple(i for i, axis in enumerate(axes) if axis not in BATCH)
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32)), axis=inner, keepdims=True))


def scale_by_adafactor(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return Adafactor without its learning rate, which is relative where `parameter_scale` is on.

    At update t, counted from 1, second moments decay by 1 - t^-`decay_exponent`. With `beta1` the update is a moving
    average, not corrected for its beginning. GShard's settings (appendix A.2) are beta1 0 and the defaults otherwise.
    """

    def init(parameters: Any) -> AdafactorState:
        moments = map_variables(lambda parameter: _zero_moments(parameter, config), parameters)
        return AdafactorState(jnp.zeros((), jnp.int32), moments)

    def update(gradients: Any, state: AdafactorState, parameters: Any) -> tuple[Any, AdafactorState]:
        decay = 1.0 - (state.count + 1).astype(jnp.float32) ** -config.decay_exponent
        pairs = map_variables(
            lambda gradient, moments, parameter: _update(gradient, moments, parameter, decay, config),
            gradients,
            state.moments,
            parameters,
        )
        updates, moments = (map_variables(lambda _, pair, i=i: pair[i], gradients, pairs) for i in (0, 1))
        return updates, AdafactorState(state.count + 1, moments)

    return optax.GradientTransformation(init, update)


def _zero_moments(parameter: NamedArray, config: OptimizerConfig) -> Moments:
    axes, shape = logical_axes(parameter), parameter.get_value().shape

    def without(dimensions: tuple[int, ...]) -> NamedArray:
        kept = [i for i in range(len(axes)) if i not in dimensions]
        return nnx.Variable(jnp.zeros([shape[i] for i in kept]), logical_axes=tuple(axes[i] for i in kept))

    dimensions = factoring(axes) if config.factored else None
    return Moments(
        rows=without(dimensions[1]) if dimensions else None,
        columns=without(dimensions[0]) if dimensions else None,
        whole=None if dimensions else without(()),
        momentum=without(()) if config.beta1 else None,
    )


def _update(
    gradient: NamedArray, moments: Moments, parameter: NamedArray, decay: Float32[Array, ""], config: OptimizerConfig
) -> tuple[NamedArray, Moments]:
    """Return the update of one parameter (Algorithms 4 and 5 of the paper), and its new moments."""
    axes, g = logical_axes(parameter), gradient.get_value()
    if moments.whole is not None:
        v = _mixed(moments.whole, jnp.square(g) + SMALL_SQUARE, decay)
        moments = _replaced(moments, whole=v)
        u = g * jax.lax.rsqrt(v)
    else:
        u, moments = _factored(g, moments, axes, decay)
    if config.update_clip is not None:
        u = u / jnp.maximum(1.0, root_mean_square(u, axes) / config.update_clip)
    if config.parameter_scale:
        u = u * jnp.maximum(root_mean_square(parameter.get_value(), axes), SMALL_SCALE)
    if moments.momentum is not None:
        u = _mixed(moments.momentum, u, jnp.float32(config.beta1))
        moments = _replaced(moments, momentum=u)
    return gradient.replace(u), moments


def _factored(
    g: Float[Array, "*any"], moments: Moments, axes: Axes, decay: Float32[Array, ""]
) -> tuple[Float32[Array, "*any"], Moments]:
    dimensions = factoring(axes)
    assert dimensions is not None
    assert moments.rows is not None
    assert moments.columns is not None
    rows, columns = dimensions
    r = _mixed(moments.rows, jnp.square(g).mean(axis=columns) + SMALL_SQUARE, decay)
    c = _mixed(moments.columns, jnp.square(g).mean(axis=rows) + SMALL_SQUARE, decay)
    along_rows = jnp.expand_dims(r, columns)
    # Roots one by one: where a gradient is zero the quotient r / mean(r) may be too small for a float32.
    row_factor = jax.lax.rsqrt(along_rows) * jnp.sqrt(along_rows.mean(axis=rows, keepdims=True))
    u = g * row_factor * jax.lax.rsqrt(jnp.expand_dims(c, rows))
    return u, _replaced(moments, rows=r, columns=c)


def _mixed(old: NamedArray, new: Float[Array, "*any"], decay: Float32[Array, ""]) -> Float32[Array, "*any"]:
    mixed: Array = decay * old.get_value() + (1.0 - decay) * new
    return mixed


def _replaced(moments: Moments, **arrays: Float32[Array, "..."]) -> Moments:
    """Return moments with new arrays in the places of old ones."""
    values = {name: getattr(moments, name).replace(array) for name, array in arrays.items()}
    return Moments(**{**vars(moments), **values})
