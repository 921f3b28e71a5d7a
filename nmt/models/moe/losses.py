"""The losses of mixture-of-experts layers, weighted: what the objective adds to the cross-entropy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nmt.config import MoEConfig
from nmt.models.moe.routing import RoutingStats


def auxiliary_loss(stats: Mapping[str, RoutingStats], config: MoEConfig) -> jax.Array:
    """Return the weighted balance, z and budget losses, each a mean over the sparse layers that have it.

    A layer routed by a hash has neither a balance nor a z-loss, one with expert choice no balance loss.

    Args:
      stats: by stack, `encoder` and `decoder`, with a leading axis over sparse layers.
      config: the layers' configuration.
    """
    kinds = {"encoder": config.routing, "decoder": config.of_decoder}

    def mean(name: str, *without: str) -> jax.Array:
        layers = [getattr(of_stack, name) for stack, of_stack in stats.items() if kinds[stack] not in without]
        return jnp.concatenate(layers).mean() if layers else jnp.zeros(())

    loss = config.balance_weight * mean("balance_loss", "hash", "expert_choice") + config.z_weight * mean(
        "z_loss", "hash"
    )
    return loss + config.gated_weight * mean("budget_loss") if config.shared == "gated" else loss
