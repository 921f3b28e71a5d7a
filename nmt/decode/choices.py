"""Choosing extensions as a request asks: under rules, in diverse groups, at random, or one for each alternative."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32

from nmt.decode.options import SearchOptions
from nmt.decode.rules import LogitRules, StepContext, adjust_logits, logit_rules
from nmt.decode.sampling import SamplingRules, filter_logits, gumbel_noise, sampling_rules
from nmt.decode.selection import best_extensions, log_total
from nmt.decode.steering.steps import RowSteering, SteeringState, SteeringTokens, advance_steering, steer_logits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ChoiceRules:
    """How the sentences of a request choose their extensions; parts that are None are not compiled."""

    logits: LogitRules = field(default_factory=LogitRules)
    sampling: SamplingRules | None = None
    diversity: Float[Array, ""] | None = None
    min_alternative: Float[Array, ""] | None = None  # least log probability of a token that makes an alternative
    steering: SteeringTokens | None = None
    groups: int = field(default=1, metadata={"static": True})  # of diverse beam search

    @property
    def plain(self) -> bool:
        """Whether the most probable extensions are chosen, and nothing else is asked."""
        return self.logits.empty and self.steering is None and self.groups == 1 and not self.independent

    @property
    def independent(self) -> bool:
        """Whether each hypothesis is extended by itself, but for the token that makes it an alternative."""
        return self.sampling is not None or self.min_alternative is not None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowChoice:
    """Values of each sentence that its choices depend on; parts that are None are not compiled."""

    key: UInt32[Array, "B 2"] | None = None  # of its samples, see `sampling_key`
    alternatives: Int[Array, " B"] | None = None  # the position at which its hypotheses take different tokens
    steering: RowSteering | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hypotheses:
    """Live hypotheses, W a row."""

    context: StepContext
    score: Float[Array, "B W"]  # that they are chosen by; -inf where no hypothesis lives
    log_probability: Float[Array, "B W"]  # of the model
    steering: SteeringState | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Permission:
    """The tokens that may come next."""

    allowed: Bool[Array, " V"]
    end: Int[Array, ""]  # the token that ends a hypothesis, under rules of its own
    may_end: Bool[Array, " B"]
    may_go_on: Bool[Array, " B"]  # whether any other token may come
    limit: Int[Array, " B"] | None = None  # most tokens of a hypothesis, which steering asks for


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Extensions:
    """Extensions of hypotheses by one token."""

    score: Float[Array, "B W"]  # that they are chosen by; -inf for none
    log_probability: Float[Array, "B W"]  # of the model
    parent: Int[Array, "B W"]  # the hypothesis that is extended
    token: Int[Array, "B W"]
    steering: SteeringState | None = None  # of the extended hypotheses


def choice_rules(options: SearchOptions, steering: SteeringTokens | None = None) -> ChoiceRules:
    """Return how the sentences of a request choose their extensions, and are steered if there are tokens for it."""
    least = options.min_alternative_probability
    return ChoiceRules(
        logits=logit_rules(options),
        sampling=sampling_rules(options),
        diversity=jnp.float32(options.diversity) if options.beam_groups > 1 else None,
        min_alternative=None if options.alternatives is None else jnp.log(jnp.float32(least)),
        steering=steering,
        groups=1 if options.sampling or options.alternatives is not None else options.beam_groups,
    )


def choose_extensions(
    rules: ChoiceRules,
    row: RowChoice,
    live: Hypotheses,
    logits: Float32[Array, "B W Q"],
    permission: Permission,
) -> Extensions:
    """Return as many extensions of the hypotheses of each row as it has hypotheses.

    Beam search chooses the best of all; its groups do so one after the other, each among the extensions of its own
    hypotheses. Otherwise each hypothesis is extended by itself. At position 0 the hypotheses of a row are all the same,
    the empty one, and stand for one in each group.

    Args:
      rules: those of the request.
      row: those of each sentence.
      live: the hypotheses.
      logits: float32 [B,W,Q], the model's, meaningless from V on.
      permission: tokens that may come next.
    """
    distinct = replace(live, score=_without_copies(live, rules.groups))
    if rules.plain:
        best, parent, token = _best(distinct.score, logits, permission, None)
        return Extensions(best, best, parent, token)
    total = log_total(logits, permission.allowed.shape[0])
    adjusted = adjust_logits(rules.logits, live.context, logits)
    adjusted = adjusted.at[:, :, permission.end].set(logits[:, :, permission.end])
    adjusted, forced = _steered(rules, row, live, (adjusted, logits), permission)
    permission = _allow_way_out(adjusted, live.score, permission)
    if rules.independent:
        score, parent, token = _independent(rules, row, live, (adjusted, total), permission)
    elif rules.groups > 1:
        assert rules.diversity is not None
        score, parent, token = _diverse(rules, distinct.score, (adjusted, total), permission)
    else:
        score, parent, token = _best(distinct.score, adjusted, permission, total)
    own = _take(live.log_probability, parent) + _log_probability(logits, total, parent, token)
    own = jnp.where(score > -jnp.inf, own, -jnp.inf)
    if rules.steering is None or row.steering is None or live.steering is None:
        return Extensions(score, own, parent, token)
    position = live.context.position
    steering = advance_steering(rules.steering, row.steering, live.steering, forced, position, parent, token)
    return Extensions(score, own, parent, token, steering)


def _steered(
    rules: ChoiceRules,
    row: RowChoice,
    live: Hypotheses,
    logits: tuple[Float32[Array, "B W Q"], Float32[Array, "B W Q"]],
    permission: Permission,
) -> tuple[Float32[Array, "B W Q"], Bool[Array, "B W"]]:
    """Return logits, which are given as rules leave them and as the model gives them, with steering applied.

    Also returns the hypotheses that were made to go on with a constraint.
    """
    adjusted, own = logits
    if rules.steering is None or row.steering is None or live.steering is None or permission.limit is None:
        return adjusted, jnp.zeros(own.shape[:2], bool)
    allowed = jnp.pad(permission.allowed, (0, own.shape[-1] - permission.allowed.shape[0]))
    adjusted, own = (jnp.where(allowed, x, -jnp.inf) for x in (adjusted, own))
    place = live.context.position, permission.limit, permission.end
    return steer_logits(rules.steering, row.steering, live.steering, *place, adjusted, own)


Choice = tuple[Float[Array, "B _"], Int[Array, "B _"], Int[Array, "B _"]]  # scores, parents, tokens


def _best(
    score: Float[Array, "B W"],
    logits: Float32[Array, "B W Q"],
    permission: Permission,
    total: Float[Array, "B W"] | None,
) -> Choice:
    allowed, end = permission.allowed, permission.end
    return best_extensions(logits, score, allowed, end, permission.may_end, permission.may_go_on, total)


def _without_copies(live: Hypotheses, groups: int) -> Float[Array, "B W"]:
    """Return the scores of hypotheses, at position 0 -inf but for the first of each group: the others are copies."""
    beam = live.score.shape[1]
    copies = (live.context.position == 0)[:, None] & (jnp.arange(beam) % (beam // groups) > 0)
    return jnp.where(copies, -jnp.inf, live.score)


def _allow_way_out(logits: Float32[Array, "B W Q"], score: Float[Array, "B W"], permission: Permission) -> Permission:
    """Let the hypotheses of a row end where rules leave none of them another token."""
    others = permission.allowed.at[permission.end].set(False)
    possible = (logits[:, :, : others.shape[0]] > -jnp.inf) & others
    stuck = ~(possible.any(axis=-1) & (score > -jnp.inf)).any(axis=-1)
    return replace(permission, may_end=permission.may_end | stuck)


def _take(table: Float[Array, "B W"], parent: Int[Array, "B _"]) -> Float[Array, "B _"]:
    return jnp.take_along_axis(table, parent, axis=1)


def _log_probability(
    logits: Float32[Array, "B W Q"],
    total: Float[Array, "B W"],
    parent: Int[Array, "B _"],
    token: Int[Array, "B _"],
) -> Float[Array, "B _"]:
    """Return the log probabilities of tokens, float32 [B,W], after those hypotheses."""
    row = jnp.arange(parent.shape[0])[:, None]
    return logits[row, parent, token] - total[row, parent]


def _permitted(logits: Float32[Array, "B W Q"], permission: Permission) -> Float32[Array, "B W Q"]:
    """Return logits, -inf for tokens that may not come next."""
    vocabulary = permission.allowed.shape[0]
    here = permission.allowed & permission.may_go_on[:, None]
    here = here.at[:, permission.end].set(permission.may_end)
    return jnp.where(jnp.pad(here, ((0, 0), (0, logits.shape[-1] - vocabulary)))[:, None], logits, -jnp.inf)


def _independent(
    rules: ChoiceRules,
    row: RowChoice,
    live: Hypotheses,
    weighed: tuple[Float32[Array, "B W Q"], Float[Array, "B W"]],
    permission: Permission,
) -> Choice:
    """Extend each hypothesis by itself, but where the hypotheses of a row are to take different tokens."""
    logits, total = weighed
    permitted = _permitted(logits, permission)
    parent, chances = jnp.broadcast_to(jnp.arange(logits.shape[1]), logits.shape[:2]), permitted
    if rules.sampling is not None:
        assert row.key is not None
        noise = gumbel_noise(row.key, live.context.position, *logits.shape[1:])
        chances = filter_logits(rules.sampling, chances) + noise
    token = chances.argmax(axis=-1).astype(jnp.int32)
    score = _take(live.score, parent) + _log_probability(permitted, total, parent, token)
    if row.alternatives is None:
        return score, parent.astype(jnp.int32), token
    assert rules.min_alternative is not None
    best = _best(_without_copies(live, 1), logits, permission, total)
    probable = best[0] - _take(live.score, best[1]) >= rules.min_alternative
    different = jnp.where(probable | (jnp.arange(logits.shape[1]) == 0), best[0], -jnp.inf), *best[1:]
    # Before that position all are the same, so that one suffices.
    copies = (live.context.position < row.alternatives)[:, None] & (jnp.arange(logits.shape[1]) > 0)
    score = jnp.where(copies, -jnp.inf, score)
    here = (live.context.position == row.alternatives)[:, None]
    chosen = (jnp.where(here, one, other) for one, other in zip(different, (score, parent, token), strict=True))
    score, parent, token = chosen
    return score, parent, token


def _diverse(
    rules: ChoiceRules,
    score: Float[Array, "B W"],
    weighed: tuple[Float32[Array, "B W Q"], Float[Array, "B W"]],
    permission: Permission,
) -> Choice:
    """Let each group choose its best extensions, after those of earlier groups (Vijayakumar et al. 2016).

    A token is worth less for a group by the diversity times the number of hypotheses of earlier groups that took it
    here; scores do not keep this (arXiv:1610.02424).
    """
    assert rules.diversity is not None
    logits, total = weighed
    size = logits.shape[1] // rules.groups
    rows = jnp.arange(logits.shape[0])[:, None]
    taken = jnp.zeros((logits.shape[0], logits.shape[2]))
    found: list[Choice] = []
    for group in range(rules.groups):
        first = group * size
        own = slice(first, first + size)
        lowered = logits[:, own] - (rules.diversity * taken)[:, None]
        chosen, parent, token = _best(score[:, own], lowered, permission, total[:, own])
        real = chosen > -jnp.inf
        parent = parent + first
        chosen = _take(score, parent) + _log_probability(logits, total, parent, token)
        found.append((jnp.where(real, chosen, -jnp.inf), parent, token))
        taken = taken.at[rows, token].add(real.astype(taken.dtype))
    scores, parents, tokens = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return scores, parents, tokens
