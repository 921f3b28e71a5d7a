"""The mixture-of-experts feed-forward layer (GShard, section 2.2)."""

import jax
import jax.numpy as jnp
from flax import nnx

from nmt.config import MoEConfig
from nmt.errors import UserError
from nmt.models.layers import parameter
from nmt.models.moe.dispatch import Owners, einsum_dispatch, grouped_dispatch, scatter_dispatch
from nmt.models.moe.routing import RoutingStats, capacity, route
from nmt.models.tokens import Phase, TokenInfo

TO_SLOTS = {"einsum": einsum_dispatch, "scatter": scatter_dispatch}


class MoE(nnx.Module):
    """A router and E feed-forward experts, each of the shape of the dense layer, without biases or dropout."""

    def __init__(self, width: int, hidden: int, config: MoEConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        experts = config.experts
        self.router = parameter(rngs, (width, experts), ("embed", None), width)
        self.wi = parameter(rngs, (experts, width, hidden), ("expert", "embed", "mlp"), width)
        self.wo = parameter(rngs, (experts, hidden, width), ("expert", "mlp", "embed"), hidden)
        self.config, self.dtype = config, dtype

    def __call__(
        self, x: jax.Array, info: TokenInfo, key: jax.Array | None = None, phase: Phase = Phase.INFER
    ) -> tuple[jax.Array, RoutingStats]:
        """Send every token to its experts and return their gated sum.

        Args:
          x: [B,S,M].
          info: the tokens [B,S]; padding goes nowhere.
          key: random key for the choice of second experts.
          phase: whether experts have a capacity; in inference no token is dropped.

        Returns:
          [B,S,M], zero where no expert took the token, and the layer's statistics.
        """
        train = phase is Phase.TRAIN
        groups = self._groups(x.shape[0] * x.shape[1]) if train else 1
        tokens = x.reshape(groups, -1, x.shape[-1])
        real = info.real.reshape(groups, -1)
        direction = None if info.direction is None else info.direction.reshape(groups, -1)
        slots = capacity(tokens.shape[1], self.config) if train and self.config.dispatch in TO_SLOTS else None
        # float32 whatever the model's type: gates decide who goes where, and bfloat16 has ties (Switch, section 2.4).
        logits = jnp.einsum(
            "gnm,me->gne", tokens.astype(jnp.float32), self.router[...], precision=jax.lax.Precision.HIGHEST
        )
        routing, stats = route(logits, real, self.config, slots, key, direction, info.directions)
        if slots is None:
            y = grouped_dispatch(tokens, routing, self.config.experts, self._experts)
        else:
            y = TO_SLOTS[self.config.dispatch](tokens, routing, self.config.experts, slots, self._experts)
        return y.reshape(x.shape), stats

    def _groups(self, tokens: int) -> int:
        size = self.config.group_size or tokens
        if tokens % size:
            raise UserError(
                f"model.moe.group_size={size} does not divide the {tokens} token slots of a batch: choose a divisor, "
                "or change train.tokens_per_batch"
            )
        return tokens // size

    def _experts(self, rows: jax.Array, owners: Owners) -> jax.Array:
        """Run every row [B,R,M] through its expert."""
        hidden = jax.nn.relu(owners.multiply(rows, self.wi[...], self.dtype))
        return owners.multiply(hidden, self.wo[...], self.dtype)
