"""The losses of mixture-of-experts layers, weighted: what the objective adds to the cross-entropy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nmt.config import MoEConfig
from nmt.models.moe.routing import RoutingStats


def auxiliary_loss(stats: Mapping[str, RoutingStats], config: MoEConfig) -> jax.Array:
    """Return the weighted balance, z and budget losses, each a mean over the sparse layers that have it.

    With `balance_reduction=sum` the balance losses are added up. A layer routed by a hash has neither a balance nor a
    z-loss, one with expert choice no balance loss.

    Args:
      stats: by stack, `encoder` and `decoder`, with a leading axis over sparse layers.
      config: the layers' configuration.
    """
    kinds = {"encoder": config.routing, "decoder": config.of_decoder}

    def layers(name: str, *without: str) -> jax.Array:
        found = [getattr(of_stack, name) for stack, of_stack in stats.items() if kinds[stack] not in without]
        return jnp.concatenate(found) if found else jnp.zeros((1,))

    balance, z = layers("balance_loss", "hash", "expert_choice"), layers("z_loss", "hash")
    over_layers = balance.sum() if config.balance_reduction == "sum" else balance.mean()
    loss = config.balance_weight * over_layers + config.z_weight * z.mean()
    return loss + config.gated_weight * layers("budget_loss").mean() if config.shared == "gated" else loss
