"""The losses of mixture-of-experts layers, weighted: the part of the objective beside the cross-entropy."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from nmt.config import MoEConfig
from nmt.models.moe.routers import make_router
from nmt.models.moe.statistics import RoutingStats


def auxiliary_loss(stats: Mapping[str, RoutingStats], config: MoEConfig) -> Float32[Array, ""]:
    """Return the sum of the weighted balance, z and budget losses, each a mean over the sparse layers that have it.

    With `balance_reduction=sum` the balance losses are added up. Which stacks have a balance loss, with which weight,
    and which have a z-loss, their routers say.

    Args:
      stats: by stack, `encoder` and `decoder`, with a leading axis over sparse layers.
      config: the layers' configuration.
    """
    routers = {stack: make_router(config, stack == "decoder") for stack in stats}

    def layers(name: str, stacks: list[str]) -> Float[Array, " Y"]:
        found = [getattr(stats[stack], name) for stack in stacks]
        return jnp.concatenate(found) if found else jnp.zeros((1,))

    def balance(scope: str) -> Float[Array, ""]:
        stacks = [stack for stack, router in routers.items() if router.balanced_over == scope]
        losses = layers("balance_loss", stacks)
        weight = routers[stacks[0]].balance_weight if stacks else 0.0
        return weight * (losses.sum() if config.balance_reduction == "sum" else losses.mean())

    z = layers("z_loss", [stack for stack, router in routers.items() if router.learns_logits])
    loss = balance("groups") + config.z_weight * z.mean()
    if any(router.balanced_over == "rows" for router in routers.values()):
        loss = loss + balance("rows")
    return loss + config.gated_weight * layers("budget_loss", list(stats)).mean() if config.shared == "gated" else loss
