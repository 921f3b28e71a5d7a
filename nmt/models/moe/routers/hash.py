"""Hash routing: a fixed hash of the token decides (Roller et al. 2021, arXiv:2106.04426), with nothing to learn.

* Choice k of a token is a function of the token's id and of k alone, the same in every layer and every run. The choices
  of a token are different experts; past E of them there is none.
* Each gate is one over the number of choices. Slots are given as in token choice, and priority has no meaning.
* Statistics: `confidence` is the gate; there is no router, so `balance_loss` and `z_loss` are zero and have no part in
  the objective. Which token ids a text has decides about the load.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray

from nmt.models.moe.routers.contract import Arrays, Router
from nmt.models.moe.routing import Decision, Routing, fill
from nmt.models.numerics import hash_integers
from nmt.models.tokens import TokenInfo


def hashed_experts(token: Int[Array, "*any"], experts: int, number: int) -> Int32[Array, "*any {number}"]:
    """Return different experts for each token id; their `number` (K) is at most `experts` (E).

    Choice k is drawn uniformly from the E - k experts that are left.
    """
    chosen: list[jax.Array] = []
    for choice in range(number):
        seed = jnp.array([0x9E3779B9 * (choice + 1) % 2**32, 0x85EBCA6B], jnp.uint32)
        expert = (hash_integers(token.astype(jnp.uint32), seed) % np.uint32(experts - choice)).astype(jnp.int32)
        for taken in jnp.sort(jnp.stack(chosen), axis=0) if chosen else ():
            expert = expert + (expert >= taken)
        chosen.append(expert)
    return jnp.stack(chosen, axis=-1)


class HashRouter(Router):
    """Every token goes to the `top_k` experts that a hash of its id names."""

    @property
    def experts_per_token(self) -> int:
        """The experts that a token uses in inference (K)."""
        return min(self.config.top_k, self.config.experts)

    def decide(
        self, x: Float[Array, "G N M"], info: TokenInfo, arrays: Arrays, slots: int | None, key: PRNGKeyArray | None
    ) -> Decision:
        """Decide by the ids of the tokens; see `Router.decide`."""
        return self.choose(info.token, info.real, slots)

    def choose(self, token: Int[Array, "G N"], real: Bool[Array, "G N"], slots: int | None) -> Decision:
        """Choose experts for token ids; `real` is False for padding."""
        number, experts = self.experts_per_token, self.config.experts
        expert = hashed_experts(token, experts, number)
        wanted = jnp.broadcast_to(real[..., None], expert.shape)
        slot, kept = fill(wanted, expert, experts, slots)
        return Decision(
            moves=Routing(expert, jnp.where(kept, 1.0 / number, 0.0), slot, kept),
            first=expert[..., 0],
            confidence=jnp.full(real.shape, 1.0 / number),
            dropped=wanted & ~kept,
        )


ROUTER = HashRouter
