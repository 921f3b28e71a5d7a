"""Expert choice: experts choose tokens (Zhou et al. 2022, arXiv:2202.09368), in the encoder only.

* Every expert takes the C tokens of its group that have the greatest router probability for it, C being the capacity;
  of equal ones the earlier; padding never. Load is balanced by construction; a token may be with any number of experts.
* Gates are the probabilities as they are (softmax over experts), as in the paper.
* Which tokens an expert takes depends on who else is in the group, so in inference, where a translation may not depend
  on its neighbours, each token takes the experts that it likes best instead: K of them, capacity_factor rounded
  (halves up) and at least 1, as many as a token has on average in training, with the same probabilities as gates. The
  same holds for the development loss unless `eval_capacity_factor` is set.
* Statistics: `load`, `confidence` and `by_direction` are of the expert that each token likes best; `dropped` has one
  entry, the share of tokens that no expert took; `balance_loss` is zero and has no part in the objective.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from nmt.config import MoEConfig
from nmt.models.moe.dispatch import Experts, _run
from nmt.models.moe.routing import (
    Routing,
    RoutingStats,
    best_experts,
    choices,
    probabilities_of,
    statistics,
    with_losses,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExpertChoice:
    """Which tokens each expert takes of each group."""

    token: jax.Array  # int32 [G,E,C]
    gate: jax.Array  # float32 [G,E,C], zero where not kept
    kept: jax.Array  # bool [G,E,C], False where there was nothing but padding to take


def choose_tokens(
    logits: jax.Array,
    real: jax.Array,
    config: MoEConfig,
    slots: int,
    direction: jax.Array | None = None,
    directions: int = 0,
) -> tuple[ExpertChoice, RoutingStats]:
    """Let every expert take its tokens; arguments as for `routing.route`, slots at most N."""
    groups, tokens, experts = logits.shape
    probabilities = probabilities_of(logits, config)
    liking = jnp.where(real[..., None], probabilities, -1.0).swapaxes(1, 2)  # [G,E,N]
    # A sort, unlike `top_k`, is split over groups by the partitioner.
    token = jnp.argsort(-jax.lax.stop_gradient(liking), axis=-1, stable=True)[..., :slots].astype(jnp.int32)
    best = jnp.take_along_axis(liking, token, axis=-1)
    kept = best >= 0.0
    taken = jnp.zeros((groups, tokens), bool)
    taken = taken.at[jnp.arange(groups)[:, None], token.reshape(groups, -1)].max(kept.reshape(groups, -1))
    first, confidence = best_experts(probabilities, 1)
    dropped = (real & ~taken)[..., None]
    stats = statistics(first[..., 0], confidence[..., 0], dropped, real, experts, direction, directions)
    choice = ExpertChoice(token=token, gate=jnp.where(kept, best, 0.0), kept=kept)
    return choice, with_losses(stats, logits, probabilities, None, real)


def choose_alone(
    logits: jax.Array,
    real: jax.Array,
    config: MoEConfig,
    direction: jax.Array | None = None,
    directions: int = 0,
) -> tuple[Routing, RoutingStats]:
    """Let every token take the experts that it likes best, whoever is beside it; arguments as for `routing.route`."""
    probabilities = probabilities_of(logits, config)
    expert, weight = best_experts(probabilities, choices(config, decoder=False))
    kept = jnp.broadcast_to(real[..., None], expert.shape)
    nothing = jnp.zeros_like(kept)
    stats = statistics(expert[..., 0], weight[..., 0], nothing, real, logits.shape[-1], direction, directions)
    routing = Routing(expert=expert, gate=jnp.where(kept, weight, 0.0), slot=jnp.zeros_like(expert), kept=kept)
    return routing, with_losses(stats, logits, probabilities, None, real)


def gather_dispatch(x: jax.Array, choice: ExpertChoice, apply: Experts) -> jax.Array:
    """Move tokens to the experts that chose them by index.

    Args:
      x: tokens [`G,N,M].
      choice: who takes whom.
      apply: the experts.

    Returns:
      [`G,N,M], of the type of x: the gated sum of the experts' outputs, zero for tokens that no expert took.
    """
    # Taken as float32, for any number of experts may take a token, whose gradient is the sum of theirs.
    inputs = jax.vmap(lambda rows, token: rows[token])(x.astype(jnp.float32), choice.token).astype(x.dtype)
    outputs = _run(inputs.swapaxes(0, 1), apply).swapaxes(0, 1) * choice.gate[..., None]  # float32
    y = jax.vmap(lambda rows, token, y: jnp.zeros(rows.shape, y.dtype).at[token].add(y))(x, choice.token, outputs)
    return y.astype(x.dtype)


def einsum_gather_dispatch(x: jax.Array, choice: ExpertChoice, apply: Experts) -> jax.Array:
    """Do the same by products with one-hot masks, the reference."""
    send = jax.nn.one_hot(choice.token, x.shape[1]) * choice.kept[..., None]  # [G,E,C,N]
    outputs = _run(jnp.einsum("gecn,gnm->egcm", send.astype(x.dtype), x), apply)
    return jnp.einsum("gecn,gec,egcm->gnm", send, choice.gate, outputs.astype(jnp.float32)).astype(x.dtype)
