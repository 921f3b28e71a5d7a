"""Token choice: tokens choose their experts by a learnt router (GShard, Algorithm 1).

Every convention of token choice is stated here and nowhere else; docs/moe.md has the sources. The other kinds of
routing say in what they differ.

* The router and its softmax are float32. The capacity of an expert for one group of N tokens is
  C = min(N, max(min_capacity, ceil(factor * N / E))); GShard's C = 2N/E is a factor of 2. More than N slots are of no
  use, since the choices of a token are different experts.
* A token chooses its K most probable experts; of equal ones the lower index. An expert whose probability underflows to
  zero is not chosen, nor is one that does not exist (K = 2, E = 1).
* First choices take slots in token order, all of them before any second choice, also in token order, and so on.
  A choice past an expert's capacity is dropped: its gate is zero and the token passes by the residual alone.
  `batch_prioritised`: instead of token order, decreasing probability of the first choice, equal ones in token order; in
  a decoder this is of no effect, since any token could lose its slot to a later one. In token order a first choice
  cannot, but a second one can: the first choices of all tokens are served before it, those of later tokens too. So in
  training a decoder does learn a little from tokens to come, as GShard's does; inference drops nothing and cannot.
* Gates are probabilities, divided by their sum over all K choices (`before`: the paper, Lingvo, ST-MoE), by their sum
  over the choices that were kept (`after`: NLLB), or as they are (`none`: Switch).
* Choices after the first: `random` keeps choice k with probability min(1, g_k / threshold), independently, g_k its
  gate normalised over all K choices whatever `normalise` says; threshold 0.5 is the paper's `2 * g2 > rnd`. One that is
  not kept takes no slot (Lingvo; the printed algorithm advances the counter). Without a key all are kept.
* Padding takes no slot and has no part in a loss or a statistic.
* The load-balancing loss is E * sum_e f_e P_e per group, mean over groups that hold a token: f_e the share of tokens
  whose first choice is e, before capacity; P_e the mean router probability of e. It is 1 when balanced.
  (The paper's l_aux is this over E^2; Lingvo, MTF and Switch use this form.) `balance_choices=all`: f_e is e's share of
  all K choices instead, before sampling and capacity, so that it is 1 when balanced as well.
* With `slots=None` nothing is dropped. At inference there is no key either and all choices are kept, so that a token's
  result depends on the token alone.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from nmt.models.moe.routers.contract import Arrays, LearntRouter
from nmt.models.moe.routing import Decision, Routing, best_experts, compute_gates, sampled_choices


class TokenChoiceRouter(LearntRouter):
    """Every token chooses its `top_k` most probable experts."""

    balanced_over = "groups"

    @property
    def experts_per_token(self) -> int:
        """The experts that a token uses in inference (K)."""
        return min(self.config.top_k, self.config.experts)

    def choose(
        self,
        logits: Float[Array, "G N E"],
        real: Bool[Array, "G N"],
        arrays: Arrays,
        slots: int | None,
        key: PRNGKeyArray | None,
    ) -> Decision:
        """Choose experts for tokens by their logits; see `LearntRouter.choose`."""
        config, experts = self.config, logits.shape[-1]
        probabilities = self.probabilities(logits)
        expert, weight = best_experts(probabilities, config.top_k)
        wanted = real[..., None] & (weight > 0.0)
        if config.second_expert == "random" and config.top_k > 1 and key is not None:
            wanted = wanted & sampled_choices(weight, config.second_threshold, key)
        slot, kept = self.fill_slots(wanted, expert, weight, slots)
        number = config.top_k if config.balance_choices == "all" else 1
        return Decision(
            moves=Routing(expert, compute_gates(weight, kept, config.normalise), slot, kept),
            first=expert[..., 0],
            confidence=weight[..., 0],
            dropped=wanted & ~kept,
            logits=logits,
            probabilities=probabilities,
            counted=jnp.where(real[..., None] & (weight > 0.0), expert, experts)[..., :number],
        )


ROUTER = TokenChoiceRouter
