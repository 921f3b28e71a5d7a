"""Hash routing: a fixed hash of the token decides (Roller et al. 2021, arXiv:2106.04426), with nothing to learn.

* Choice k of a token is a function of the token's id and of k alone, the same in every layer and every run. The choices
  of a token are different experts; past E of them there is none.
* Each gate is one over the number of choices. Slots are given as in `routing`, and priority has no meaning.
* Statistics: `confidence` is the gate; there is no router, so `balance_loss` and `z_loss` are zero and have no part in
  the objective. Which token ids a text has decides about the load.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nmt.config import MoEConfig
from nmt.models.moe.routing import Routing, RoutingStats, fill, statistics
from nmt.models.numerics import scrambled


def hashed_experts(token: jax.Array, experts: int, number: int) -> jax.Array:
    """Return different experts for each token id, int32 [...,K], for `number` (K) at most `experts` (E).

    Choice k is drawn uniformly from the E - k experts that are left.
    """
    chosen: list[jax.Array] = []
    for choice in range(number):
        seed = jnp.array([0x9E3779B9 * (choice + 1) % 2**32, 0x85EBCA6B], jnp.uint32)
        expert = (scrambled(token.astype(jnp.uint32), seed) % np.uint32(experts - choice)).astype(jnp.int32)
        for taken in jnp.sort(jnp.stack(chosen), axis=0) if chosen else ():
            expert = expert + (expert >= taken)
        chosen.append(expert)
    return jnp.stack(chosen, axis=-1)


def route_by_hash(
    token: jax.Array,
    real: jax.Array,
    config: MoEConfig,
    slots: int | None,
    direction: jax.Array | None = None,
    directions: int = 0,
) -> tuple[Routing, RoutingStats]:
    """Choose `top_k` experts for every token by a hash; arguments as for `routing.route`, token int32 [G,N]."""
    number = min(config.top_k, config.experts)
    expert = hashed_experts(token, config.experts, number)
    wanted = jnp.broadcast_to(real[..., None], expert.shape)
    slot, kept = fill(wanted, expert, config.experts, slots)
    gate = jnp.where(kept, 1.0 / number, 0.0)
    confidence = jnp.full(real.shape, 1.0 / number)
    stats = statistics(expert[..., 0], confidence, wanted & ~kept, real, config.experts, direction, directions)
    return Routing(expert=expert, gate=gate, slot=slot, kept=kept), stats
