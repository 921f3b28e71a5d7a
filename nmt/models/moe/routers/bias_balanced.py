"""Bias-balanced routing: tokens choose, and biases of the experts keep the load even, without an auxiliary loss.

Wang et al. 2024 (arXiv:2408.15664) and DeepSeek-V3 (arXiv:2412.19437, section 2.1.2):

* The affinities of a token are the sigmoid of its logits, each for itself, or their softmax (`affinity`).
* A token chooses the K experts with the greatest sum of affinity and bias; of equal ones the lower index. The bias has
  no other part: gates are the affinities of the chosen experts, normalised over them (`normalise`).
* After every optimizer step the bias of an expert rises by `bias_rate` if its load in the step was below the mean of
  all experts, falls by as much if it was above, and stays where it was equal. The load counts every choice of every
  real token of the whole batch, before capacity: all micro-batches, all devices. Biases begin at zero, have no
  gradient, and serve in evaluation and translation too.
* Slots are given as in token choice. Choices after the first are not sampled.
* With `sequence_balance_weight` a load-balancing loss of single sequences is added (DeepSeek-V3, equations 17 to 20):
  E * sum_e f_e P_e, mean over the rows of the batch that hold a token. f_e is e's share of the choices that the tokens
  of the row would make without biases, P_e their mean affinity, divided by its sum over the experts. A sequence is a
  row of packed sentences, as it is a row of packed documents there.
* Statistics: `load` is the share of all choices, not of first ones, since all choices move the biases; `confidence` is
  the affinity of the first choice; `balance_loss` is that of sequences, whatever its weight; `bias` are the biases that
  were in force.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, PRNGKeyArray

from nmt.models.buffers import buffer
from nmt.models.layers import Init
from nmt.models.moe.routers.contract import Arrays, LearntRouter
from nmt.models.moe.routing import Decision, Routing, best_experts, compute_gates
from nmt.models.moe.statistics import RoutingStats

BIAS = "router_bias"


class BiasBalancedRouter(LearntRouter):
    """Every token chooses its `top_k` experts by affinity and bias."""

    balanced_over = "rows"

    @property
    def experts_per_token(self) -> int:
        """The experts that a token uses in inference (K)."""
        return min(self.config.top_k, self.config.experts)

    @property
    def balance_weight(self) -> float:
        """The coefficient of the load-balancing loss of sequences."""
        return self.config.sequence_balance_weight

    def variables(self, width: int, rngs: nnx.Rngs, init: Init) -> dict[str, nnx.Variable[jax.Array]]:
        """Return the router's matrix and the biases, float32 [E]."""
        return {**super().variables(width, rngs, init), BIAS: buffer((self.config.experts,), (None,))}

    def choose(
        self,
        logits: Float[Array, "G N E"],
        real: Bool[Array, "G N"],
        arrays: Arrays,
        slots: int | None,
        key: PRNGKeyArray | None,
    ) -> Decision:
        """Choose experts for tokens by their logits; see `LearntRouter.choose`."""
        config, experts, bias = self.config, logits.shape[-1], arrays[BIAS]
        affinity = self.affinities(logits)
        expert, weight = best_experts(affinity, config.top_k, affinity + bias)
        wanted = real[..., None] & (weight > 0.0)
        slot, kept = self.fill_slots(wanted, expert, weight, slots)
        alone, _ = best_experts(affinity, config.top_k)
        return Decision(
            moves=Routing(expert, compute_gates(weight, kept, config.normalise), slot, kept),
            first=expert[..., 0],
            confidence=weight[..., 0],
            dropped=wanted & ~kept,
            logits=logits,
            probabilities=affinity / jnp.maximum(affinity.sum(axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny),
            counted=jnp.where(real[..., None], alone, experts)[..., : self.experts_per_token],
            assigned=jnp.where(wanted, expert, experts),
            bias=jax.lax.stop_gradient(bias),
        )

    def affinities(self, logits: Float[Array, "*any E"]) -> Float32[Array, "*any E"]:
        """Return the affinities of tokens to experts."""
        if self.config.affinity == "softmax":
            return self.probabilities(logits)
        return self.rounded(jax.nn.sigmoid(logits))

    def updated_buffers(self, arrays: Arrays, stats: RoutingStats) -> dict[str, jax.Array]:
        """Return the biases [...,E] after a step whose choices fell on the experts as `stats.assigned` [...,E] says."""
        load = stats.assigned
        assert load is not None
        below_mean = jnp.sign(load.mean(axis=-1, keepdims=True) - load)
        return {BIAS: arrays[BIAS] + self.config.bias_rate * below_mean}


ROUTER = BiasBalancedRouter
