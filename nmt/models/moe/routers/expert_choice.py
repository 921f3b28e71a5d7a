"""Expert choice: experts choose tokens (Zhou et al. 2022, arXiv:2202.09368), in the encoder only.

* Every expert takes the C tokens of its group that have the greatest router probability for it, C being the capacity;
  of equal ones the earlier; padding never. Load is balanced by construction; any number of experts may take a token.
* Gates are the probabilities as they are (softmax over experts), as in the paper.
* Which tokens an expert takes depends on the others of the group. In inference a translation may not depend on its
  neighbours, so each token takes its most probable experts instead: K of them, capacity_factor rounded (halves up) and
  at least 1, as many as a token has on average in training, with the same probabilities as gates. The same holds for
  the development loss unless `eval_capacity_factor` is set.
* Statistics: `load`, `confidence` and `by_direction` are of the most probable expert of each token; `dropped` has one
  entry, the share of tokens that no expert took; `balance_loss` is zero and has no part in the objective.
"""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from nmt.models.moe.capacity import exact_factor
from nmt.models.moe.routers.contract import Arrays, LearntRouter
from nmt.models.moe.routing import Decision, ExpertChoice, Routing, best_experts


class ExpertChoiceRouter(LearntRouter):
    """Every expert takes its most probable tokens in training; in inference tokens choose."""

    @property
    def experts_per_token(self) -> int:
        """The experts that a token uses in inference (K): the mean of training."""
        mean = math.floor(exact_factor(self.config.capacity_factor) + Fraction(1, 2))
        return min(max(1, mean), self.config.experts)

    def training_pairs(self, tokens: float, slots: float) -> float:
        """Return the pairs of token and expert in training: every slot has one."""
        return slots

    def choose(
        self,
        logits: Float[Array, "G N E"],
        real: Bool[Array, "G N"],
        arrays: Arrays,
        slots: int | None,
        key: PRNGKeyArray | None,
    ) -> Decision:
        """Let experts choose where they have slots, C at most N; else tokens. See `LearntRouter.choose`."""
        return self._tokens_choose(logits, real) if slots is None else self._experts_choose(logits, real, slots)

    def _experts_choose(self, logits: Float[Array, "G N E"], real: Bool[Array, "G N"], slots: int) -> Decision:
        groups, tokens, _ = logits.shape
        probabilities = self.probabilities(logits)
        liking = jnp.where(real[..., None], probabilities, -1.0).swapaxes(1, 2)  # [G,E,N]
        # A sort, unlike `top_k`, is split over groups by the partitioner.
        token = jnp.argsort(-jax.lax.stop_gradient(liking), axis=-1, stable=True)[..., :slots].astype(jnp.int32)
        best = jnp.take_along_axis(liking, token, axis=-1)
        kept = best >= 0.0
        taken = jnp.zeros((groups, tokens), bool)
        taken = taken.at[jnp.arange(groups)[:, None], token.reshape(groups, -1)].max(kept.reshape(groups, -1))
        first, confidence = best_experts(probabilities, 1)
        return Decision(
            moves=ExpertChoice(token=token, gate=jnp.where(kept, best, 0.0), kept=kept),
            first=first[..., 0],
            confidence=confidence[..., 0],
            dropped=(real & ~taken)[..., None],
            logits=logits,
            probabilities=probabilities,
        )

    def _tokens_choose(self, logits: Float[Array, "G N E"], real: Bool[Array, "G N"]) -> Decision:
        probabilities = self.probabilities(logits)
        expert, weight = best_experts(probabilities, self.experts_per_token)
        kept = jnp.broadcast_to(real[..., None], expert.shape)
        return Decision(
            moves=Routing(expert, jnp.where(kept, weight, 0.0), jnp.zeros_like(expert), kept),
            first=expert[..., 0],
            confidence=weight[..., 0],
            dropped=jnp.zeros_like(kept),
            logits=logits,
            probabilities=probabilities,
        )


ROUTER = ExpertChoiceRouter
