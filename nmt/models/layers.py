"""Parameters with logical axes, and the dense feed-forward layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from nmt.config import ModelConfig
from nmt.models.activations import activate, is_gated
from nmt.models.numerics import dropout, product
from nmt.sharding import active_rules, shard


@dataclass(frozen=True)
class Init:
    """How first weights are drawn."""

    kind: Literal["uniform", "truncated_normal", "xavier"] = "uniform"
    scale: float = 1.0  # factor on the variance

    @classmethod
    def from_config(cls, config: ModelConfig) -> "Init":
        """Return the way in which a model's first weights are drawn."""
        return cls(config.init, config.init_scale)


def _uniform(key: jax.Array, shape: tuple[int, ...], variance: float) -> jax.Array:
    bound = (3.0 * variance) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def _scale_uniform(key: jax.Array, shape: tuple[int, ...], scale: float, fan_in: int, fan_out: int) -> jax.Array:
    """Uniform(+-sqrt(3 scale / fan_in)): Lingvo's GShard layers."""
    return _uniform(key, shape, scale / fan_in)


def _truncated_normal(key: jax.Array, shape: tuple[int, ...], scale: float, fan_in: int, fan_out: int) -> jax.Array:
    """Normal of deviation sqrt(scale / fan_in), drawn again beyond two deviations (Switch, section 2.4).

    The paper does not make up for what is cut off, and neither does this: what is left has 0.88 of that deviation.
    """
    return (scale / fan_in) ** 0.5 * jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32)


def _xavier(key: jax.Array, shape: tuple[int, ...], scale: float, fan_in: int, fan_out: int) -> jax.Array:
    """Uniform(+-sqrt(6 scale / (fan_in + fan_out))) (Glorot and Bengio 2010, equation 16)."""
    return _uniform(key, shape, 2.0 * scale / (fan_in + fan_out))


Draw = Callable[[jax.Array, tuple[int, ...], float, int, int], jax.Array]

_DRAWS: dict[str, Draw] = {"uniform": _scale_uniform, "truncated_normal": _truncated_normal, "xavier": _xavier}


def parameter(
    rngs: nnx.Rngs,
    shape: Sequence[int],
    axes: Sequence[str | None],
    fan_in: int,
    fan_out: int | None = None,
    init: Init = Init(),
) -> nnx.Param[jax.Array]:
    """Return a float32 parameter with its first values.

    Args:
      rngs: random streams; `params` is drawn from.
      shape: shape of the array.
      axes: logical axis of each dimension, kept as metadata `logical_axes`.
      fan_in: inputs that one output sums over.
      fan_out: outputs that one input goes to; None: the last dimension.
      init: how it is drawn.
    """
    value = _DRAWS[init.kind](rngs.params(), tuple(shape), init.scale, fan_in, fan_out or shape[-1])
    return nnx.Param(value, logical_axes=tuple(axes))


def bias_parameter(wanted: bool, shape: Sequence[int], axes: Sequence[str | None]) -> nnx.Param[jax.Array] | None:
    """Return a bias, float32 and zero at first, or None where none is wanted."""
    return nnx.Param(jnp.zeros(tuple(shape), jnp.float32), logical_axes=tuple(axes)) if wanted else None


def add_bias(x: Float[Array, "*any"], bias: nnx.Param[jax.Array] | None) -> Float[Array, "*any"]:
    """Return x [...] plus a bias that broadcasts to it, if there is one."""
    return x if bias is None else x + bias[...]


def gather_parameters(parameters: nnx.State) -> nnx.State:
    """Return parameters as layers use them: gathered where a mesh stores them sharded between uses (`expert_fsdp`).

    Stacked layers stay sharded until they are taken from the stack, each by itself.
    """
    rules = active_rules()
    if rules is None or not rules.stored:
        return parameters

    def gather(variable: nnx.Variable[Any]) -> nnx.Variable[Any]:
        value, axes = variable.get_value(), variable.get_metadata()["logical_axes"]
        if value.ndim == len(axes) and "layers" in axes:
            return variable
        return variable.replace(shard(value, *axes[-value.ndim :]))

    return jax.tree.map(gather, parameters, is_leaf=lambda x: isinstance(x, nnx.Variable))


class FeedForward(nnx.Module):
    """The dense feed-forward layer: two products around an activation, or three around a gated one."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, hidden, init = config.width, config.hidden, Init.from_config(config)

        def inner() -> nnx.Param[jax.Array]:
            return parameter(rngs, (width, hidden), ("embed", "mlp"), width, hidden, init)

        self.wi = inner()
        self.wo = parameter(rngs, (hidden, width), ("mlp", "embed"), hidden, width, init)
        two = is_gated(config.activation)
        self.wg = inner() if two else None
        self.bi = bias_parameter(config.bias, (hidden,), ("mlp",))
        self.bg = bias_parameter(config.bias and two, (hidden,), ("mlp",))
        self.bo = bias_parameter(config.bias, (width,), ("embed",))
        self.activation, self.rate, self.dtype = config.activation, config.dropout, dtype

    def __call__(self, x: Float[Array, "*any M"], key: PRNGKeyArray | None = None) -> Float32[Array, "*any M"]:
        """Transform x [...,M] to float32 [...,M]; with a key, hidden units are dropped out."""
        rows = x.reshape(-1, x.shape[-1])
        hidden = add_bias(product("nm,mh->nh", rows, self.wi[...], self.dtype), self.bi)
        gate = None if self.wg is None else add_bias(product("nm,mh->nh", rows, self.wg[...], self.dtype), self.bg)
        hidden = dropout(activate(self.activation, hidden, gate), self.rate, key)
        return add_bias(product("nh,hm->nm", hidden, self.wo[...], self.dtype), self.bo).reshape(x.shape)
