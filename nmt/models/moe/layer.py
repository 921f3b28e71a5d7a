"""The mixture-of-experts feed-forward layer (GShard, section 2.2)."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from nmt.config import ModelConfig, MoEConfig
from nmt.config.routers import ROUTERS
from nmt.errors import UserError
from nmt.models.activations import activate, is_gated
from nmt.models.layers import FeedForward, Init, add_bias, bias_parameter, parameter
from nmt.models.moe.capacity import capacity, has_capacity
from nmt.models.moe.columns import Expert, columns_dispatch, separable
from nmt.models.moe.dispatch import (
    Owners,
    einsum_dispatch,
    einsum_gather_dispatch,
    gather_dispatch,
    grouped_dispatch,
    rounds_dispatch,
    scatter_dispatch,
)
from nmt.models.moe.regularise import open_gates, output_mask
from nmt.models.moe.routers import make_router
from nmt.models.moe.routing import ExpertChoice, Routing
from nmt.models.moe.statistics import RoutingStats, statistics
from nmt.models.numerics import dropout, split_key
from nmt.models.precision import Precision
from nmt.models.tokens import Phase, TokenInfo
from nmt.models.weight_matrix import WeightMatrix, weight_matrix
from nmt.sharding import left_to_xla, shard_count

TO_SLOTS = {"einsum": einsum_dispatch, "scatter": scatter_dispatch}


@dataclass(frozen=True)
class ExpertOptions:
    """The options that experts share with the dense layers of their model."""

    activation: str = "relu"
    bias: bool = False
    init: Init = field(default_factory=Init)
    dropout: float = 0.0  # of the shared expert, a dense layer

    @classmethod
    def from_config(cls, config: ModelConfig) -> "ExpertOptions":
        """Return the options of a model."""
        return cls(config.activation, config.bias, Init.from_config(config), config.dropout)


class MoE(nnx.Module):
    """A router and E feed-forward experts, each of the shape of the dense layer, and maybe one that all tokens share.

    Args:
      width: M.
      hidden: H.
      config: routing, dispatch and experts.
      dtype: input type of products.
      rngs: random streams.
      decoder: whether the layer is a decoder's.
      options: what experts are.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        config: MoEConfig,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        decoder: bool = False,
        options: ExpertOptions = ExpertOptions(),
    ):
        experts, init, two = config.experts, options.init, is_gated(options.activation)
        self.config, self.options, self.dtype, self.decoder = config, options, dtype, decoder
        # `self.router` is its matrix, under the name that checkpoints have.
        self.policy = make_router(config, decoder)
        owned = self.policy.variables(width, rngs, init)
        self.owned = tuple(owned)
        for name, variable in owned.items():
            setattr(self, name, variable)

        def inner() -> nnx.Param[jax.Array]:
            return parameter(rngs, (experts, width, hidden), ("expert", "embed", "mlp"), width, hidden, init)

        self.wi = inner()
        self.wo = parameter(rngs, (experts, hidden, width), ("expert", "mlp", "embed"), hidden, width, init)
        self.wg = inner() if two else None
        self.bi = bias_parameter(options.bias, (experts, hidden), ("expert", "mlp"))
        self.bg = bias_parameter(options.bias and two, (experts, hidden), ("expert", "mlp"))
        self.bo = bias_parameter(options.bias, (experts, width), ("expert", "embed"))
        self.separate: tuple[Expert, ...] | None = nnx.data(None)
        if config.shared != "none":
            self.shared = _shared(width, config.shared_hidden or hidden, dtype, rngs, options)
        if config.shared == "gated":
            self.share_w = parameter(rngs, (width,), ("embed",), width, 1, init)
            self.share_b = bias_parameter(True, (1,), (None,))

    def __call__(
        self,
        x: Float[Array, "B S M"],
        info: TokenInfo,
        key: PRNGKeyArray | None = None,
        phase: Phase = Phase.INFER,
    ) -> tuple[Float[Array, "B S M"], RoutingStats]:
        """Send every token to its experts and return their gated sum.

        Args:
          x: hidden states of tokens.
          info: the tokens; padding goes nowhere.
          key: random key for everything random in training; None: nothing is.
          phase: whether experts have a capacity; in inference no token is dropped.

        Returns:
          The sums, zero where no expert took the token, and the layer's statistics. When the layer passes its tokens
          by (`TokenInfo.passed_by`), the statistics and losses are those of the routing as it would have been: the
          router learns in every step.

        Raises:
          UserError: `group_size` does not divide the tokens.
        """
        route_key, mask_key, drop_key, shared_key, gate_key = split_key(key if phase is Phase.TRAIN else None, 5)
        limited = has_capacity(self.config, phase)
        tokens_in_all = x.shape[0] * x.shape[1]
        groups = self._groups(tokens_in_all) if limited else _groups_of_devices(tokens_in_all)
        factor = self.config.capacity_factor if phase is Phase.TRAIN else self.config.eval_capacity_factor
        tokens = split_into_groups(x, groups)
        grouped = jax.tree.map(lambda part: split_into_groups(part, groups) if part.ndim > 1 else part, info)
        has_slots = limited and (self.config.dispatch in TO_SLOTS or ROUTERS[self.policy.kind].needs_slots)
        slots = capacity(tokens.shape[1], self.config, factor) if has_slots else None
        spread = not limited and groups > 1
        decision = self.policy.decide(tokens, grouped, self.router_arrays(), slots, route_key)
        stats = statistics(decision, grouped, self.config.experts, self._balanced_groups(x, groups, spread))
        move = partial(self._move, tokens, decision.moves, slots, spread, mask_key, drop_key)
        y = move() if info.passed_by is None else jax.lax.cond(info.passed_by, lambda: jnp.zeros_like(tokens), move)
        return self._share(x, join_groups(y, x), info.real, stats, shared_key, gate_key)

    def separate_experts(self, precision: Precision | None = None) -> None:
        """Give every expert arrays of its own in place of the common ones, for inference, where that is faster.

        Args:
          precision: of the matrices; None: that of products, `dtype`.
        """
        if not separable(self.config.experts):
            return
        kept: Precision = precision or ("bfloat16" if self.dtype == jnp.bfloat16 else "float32")

        def matrices(weights: nnx.Param[jax.Array] | None) -> list[WeightMatrix | None]:
            """Return the matrix [O,I] of each expert of weights [E,I,O]."""
            if weights is None:
                return [None] * self.config.experts
            return [weight_matrix(expert.T, kept) for expert in weights[...]]

        def vectors(bias: nnx.Param[jax.Array] | None) -> list[jax.Array | None]:
            return [None] * self.config.experts if bias is None else list(bias[...])

        parts = [*map(matrices, (self.wi, self.wg, self.wo)), *map(vectors, (self.bi, self.bg, self.bo))]
        self.separate = nnx.data(tuple(Expert(*own) for own in zip(*parts, strict=True)))
        self.wi = self.wg = self.wo = self.bi = self.bg = self.bo = None

    def router_arrays(self) -> dict[str, jax.Array]:
        """Return the values of the arrays that the layer owns for its router, by name."""
        return {name: getattr(self, name)[...] for name in self.owned}

    def update_buffers(self, stats: RoutingStats) -> None:
        """Move the buffers of the router by the statistics of a whole batch, with the leading axes that they have."""
        for name, value in self.policy.updated_buffers(self.router_arrays(), stats).items():
            variable = getattr(self, name)
            setattr(self, name, variable.replace(value))

    def _balanced_groups(self, x: Float[Array, "B S M"], groups: int, spread: bool) -> int:
        """Return into how many groups the tokens x are divided for the load-balancing loss."""
        if self.policy.balanced_over == "rows":
            return x.shape[0]
        # Groups that are there to spread work over devices are not balanced one by one.
        return 1 if spread else groups

    def _groups(self, tokens: int) -> int:
        size = self.config.group_size or tokens
        if tokens % size:
            raise UserError(
                f"model.moe.group_size={size} does not divide the {tokens} token slots of a batch: choose a divisor, "
                "or change train.tokens_per_batch"
            )
        return tokens // size

    def _move(
        self,
        x: Float[Array, "G N M"],
        routing: Routing | ExpertChoice,
        slots: int | None,
        spread: bool,
        mask_key: PRNGKeyArray | None,
        drop_key: PRNGKeyArray | None,
    ) -> Float[Array, "G N M"]:
        """Move tokens x to their experts, and back; `spread`: in rounds."""
        if isinstance(routing, ExpertChoice):
            return self._move_chosen(x, routing, mask_key, drop_key)
        mask = output_mask(routing.gate.shape, self.config.output_masking, mask_key)
        routing = replace(routing, gate=routing.gate * mask)
        if self.separate is not None:
            return columns_dispatch(x, routing, self.separate, self.options.activation)
        experts = partial(self._experts, key=drop_key)
        if spread:
            return rounds_dispatch(x, routing, self.config.experts, experts)
        if slots is None:
            return grouped_dispatch(x, routing, self.config.experts, experts)
        if slots == 0:
            return jnp.zeros_like(x)
        return TO_SLOTS[self.config.dispatch](x, routing, self.config.experts, slots, experts)

    def _move_chosen(
        self,
        x: Float[Array, "G N M"],
        choice: ExpertChoice,
        mask_key: PRNGKeyArray | None,
        drop_key: PRNGKeyArray | None,
    ) -> Float[Array, "G N M"]:
        """Move tokens x to the experts that have chosen them, and back."""
        if choice.token.shape[-1] == 0:
            return jnp.zeros_like(x)
        mask = output_mask(choice.gate.shape, self.config.output_masking, mask_key)
        choice = replace(choice, gate=choice.gate * mask)
        dispatch = einsum_gather_dispatch if self.config.dispatch == "einsum" else gather_dispatch
        return dispatch(x, choice, partial(self._experts, key=drop_key))

    def _experts(
        self, rows: Float[Array, "X R M"], owners: Owners, key: PRNGKeyArray | None = None
    ) -> Float[Array, "X R M"]:
        """Run every row through its expert; with a key, hidden units are dropped out."""

        def into(
            x: Float[Array, "X R I"], weight: nnx.Param[jax.Array], bias: nnx.Param[jax.Array] | None
        ) -> Float[Array, "X R O"]:
            y = owners.multiply(x, weight[...], self.dtype)
            return y if bias is None else y + owners.gather_vectors(bias[...])

        gate = None if self.wg is None else into(rows, self.wg, self.bg)
        hidden = activate(self.options.activation, into(rows, self.wi, self.bi), gate)
        return into(dropout(hidden, self.config.expert_dropout, key), self.wo, self.bo)

    def _share(
        self,
        x: Float[Array, "B S M"],
        routed: Float[Array, "B S M"],
        real: Bool[Array, "B S"],
        stats: RoutingStats,
        shared_key: PRNGKeyArray | None,
        gate_key: PRNGKeyArray | None,
    ) -> tuple[Float[Array, "B S M"], RoutingStats]:
        """Join the results of routed experts with that of the shared one for x."""
        config = self.config
        if config.shared == "none":
            return routed, stats
        common = self.shared(x, shared_key)
        if config.shared == "add":
            return common + routed, stats
        # Conditional MoE routing (NLLB, arXiv:2207.04672, section 6.2). The budget is for the gate that is learnt, not
        # for what dropout leaves of it.
        logit = jnp.einsum("bsm,m->bs", x.astype(jnp.float32), self.share_w[...], precision=jax.lax.Precision.HIGHEST)
        gate = jax.nn.sigmoid(add_bias(logit, self.share_b))
        used = (gate * real).sum() / jnp.maximum(real.sum(), 1)
        budget = jnp.where(real.any(), jnp.abs(used - config.gated_budget), 0.0)
        gate = open_gates(gate, config.gated_dropout, gate_key)[..., None]
        return (1.0 - gate) * common + gate * routed, replace(stats, budget_loss=budget)


def split_into_groups(x: Shaped[Array, "B S *any"], groups: int) -> Shaped[Array, "{groups} _ *any"]:
    """Return tokens x in so many groups (G) of as many tokens each (N)."""
    rest = x.shape[2:]
    return left_to_xla(lambda x: x.reshape(groups, -1, *rest), ("group", *[None] * (1 + len(rest))))(x)


def join_groups(y: Float[Array, "G N M"], x: Float[Array, "B S M"]) -> Float[Array, "B S M"]:
    """Return groups y as rows of tokens like x."""
    return left_to_xla(lambda y: y.reshape(x.shape), ("batch", "length", "embed"))(y)


def _groups_of_devices(tokens: int) -> int:
    """Return the groups in which tokens go to their experts where there is no capacity, and so no say in the result.

    One where every device has all experts; where they are spread, as many as the devices that have tokens.
    """
    groups = shard_count("group") if shard_count("expert") > 1 else 1
    return groups if tokens % groups == 0 else 1


def _shared(width: int, hidden: int, dtype: jnp.dtype, rngs: nnx.Rngs, options: ExpertOptions) -> FeedForward:
    """Return the expert that all tokens go to."""
    init = {"init": options.init.kind, "init_scale": options.init.scale}
    config = ModelConfig.model_validate(
        {"width": width, "hidden": hidden, "activation": options.activation, "bias": options.bias, **init}
        | {"dropout": options.dropout, "moe": None}
    )
    return FeedForward(config, dtype, rngs)
