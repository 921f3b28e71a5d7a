"""The contract of a router: which arrays it owns, which losses it has, and how it decides where tokens go."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray

from nmt.config import MoEConfig
from nmt.models.layers import Init, parameter
from nmt.models.moe.regularise import jittered
from nmt.models.moe.routing import Decision, fill
from nmt.models.moe.statistics import RoutingStats
from nmt.models.numerics import split_key
from nmt.models.tokens import TokenInfo
from nmt.sharding import einsum

Arrays = Mapping[str, jax.Array]  # by the name that the layer keeps each under


@dataclass(frozen=True)
class Router(ABC):
    """A kind of routing in one stack; it holds no arrays, and the layer passes in those that it owns.

    A new kind is a module `nmt/models/moe/routers/KIND.py` with a class `KindRouter` under the name `ROUTER`, a line in
    the table of `nmt/config/routers.py`, the keys that it reads in `MoEConfig`, and an oracle in the tests.
    """

    config: MoEConfig
    decoder: bool = False

    # Over which tokens the load-balancing loss is taken, see `statistics`; None: there is no such loss.
    balanced_over: ClassVar[Literal["groups", "rows"] | None] = None
    # Whether there are logits: the product of hidden states and a learnt matrix, which has a z-loss.
    learns_logits: ClassVar[bool] = False

    @property
    @abstractmethod
    def experts_per_token(self) -> int:
        """The experts that a token uses in inference (K)."""

    @property
    def balance_weight(self) -> float:
        """The coefficient of the load-balancing loss."""
        return self.config.balance_weight

    @property
    def kind(self) -> str:
        """The name of the kind of routing in the table of `nmt/config/routers.py`."""
        return self.config.routing_kind(self.decoder)

    def training_pairs(self, tokens: float, slots: float) -> float:
        """Return how many pairs of token and expert there are in training, given the tokens and all experts' slots."""
        return tokens * self.experts_per_token

    def variables(self, width: int, rngs: nnx.Rngs, init: Init) -> dict[str, nnx.Variable[jax.Array]]:
        """Return the arrays that the layer is to own for this router, by name.

        Args:
          width: M.
          rngs: random streams for the first values.
          init: how parameters of the model are drawn.
        """
        return {}

    @abstractmethod
    def decide(
        self, x: Float[Array, "G N M"], info: TokenInfo, arrays: Arrays, slots: int | None, key: PRNGKeyArray | None
    ) -> Decision:
        """Decide where the tokens of all groups go.

        Args:
          x: hidden states of tokens.
          info: the tokens, arrays of shape [G,N].
          arrays: the values of `variables`.
          slots: C; None at inference and for dispatch without slots: no token is dropped.
          key: random key of the layer's step; None: nothing is random.
        """

    def updated_buffers(self, arrays: Arrays, stats: RoutingStats) -> dict[str, jax.Array]:
        """Return the buffers of this router after a step, by name; those that do not change may be left out.

        Args:
          arrays: the values of `variables`, of one layer or with leading axes.
          stats: the statistics of the whole batch, with the same leading axes.
        """
        return {}


class LearntRouter(Router):
    """A router with a matrix [M,E] whose product with a token's hidden state are the token's logits."""

    learns_logits = True

    def variables(self, width: int, rngs: nnx.Rngs, init: Init) -> dict[str, nnx.Variable[jax.Array]]:
        """Return the matrix, as `router`."""
        scale = self.config.router_init_scale
        own = init if scale is None else replace(init, scale=scale)
        experts = self.config.experts
        return {"router": parameter(rngs, (width, experts), ("embed", None), width, experts, own)}

    def decide(
        self, x: Float[Array, "G N M"], info: TokenInfo, arrays: Arrays, slots: int | None, key: PRNGKeyArray | None
    ) -> Decision:
        """Decide by the logits of the tokens; see `Router.decide`."""
        jitter_key, choice_key = split_key(key, 2)
        return self.choose(self.logits(x, arrays["router"], jitter_key), info.real, arrays, slots, choice_key)

    @abstractmethod
    def choose(
        self,
        logits: Float[Array, "G N E"],
        real: Bool[Array, "G N"],
        arrays: Arrays,
        slots: int | None,
        key: PRNGKeyArray | None,
    ) -> Decision:
        """Decide where tokens go by their logits; `real` is False for padding."""

    def fill_slots(
        self,
        wanted: Bool[Array, "G N K"],
        expert: Int32[Array, "G N K"],
        weight: Float[Array, "G N K"],
        slots: int | None,
    ) -> tuple[Int32[Array, "G N K"], Bool[Array, "G N K"]]:
        """Give slots to wanted choices, by the weight of the first one where `batch_prioritised` says so; see `fill`.

        In a decoder tokens are served in their order, or any token could lose its slot to a later one.
        """
        priority = weight[..., 0] if self.config.batch_prioritised and not self.decoder else None
        return fill(wanted, expert, self.config.experts, slots, priority)

    def logits(
        self, x: Float[Array, "G N M"], matrix: Float[Array, "M E"], key: PRNGKeyArray | None
    ) -> Float32[Array, "G N E"]:
        """Return router logits for hidden states x; with a key, x is jittered."""
        # float32 whatever the model's type: gates decide who goes where, and bfloat16 has ties (Switch, section 2.4).
        rows = self.rounded(jittered(x.astype(jnp.float32), self.config.jitter, key))
        product = einsum("gnm,me->gne", rows, self.rounded(matrix), precision=jax.lax.Precision.HIGHEST)
        return self.rounded(product)

    def rounded(self, x: Float[Array, "*any"]) -> Float32[Array, "*any"]:
        """Return x in float32, rounded to `router_dtype`."""
        x = x.astype(jnp.float32)
        # A conversion there and back may be optimised away.
        return jax.lax.reduce_precision(x, 8, 7) if self.config.router_dtype == "bfloat16" else x

    def probabilities(self, logits: Float[Array, "*any E"]) -> Float32[Array, "*any E"]:
        """Return the softmax of logits over the experts."""
        return self.rounded(jax.nn.softmax(logits, axis=-1))
