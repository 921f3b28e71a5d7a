"""Beam search over a batch whose rows are at positions of their own: a state, its start, a step, a loop."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from nmt.decode.choices import ChoiceRules, Hypotheses, Permission, RowChoice, choose_extensions
from nmt.decode.rules import StepContext
from nmt.decode.selection import top_k
from nmt.decode.steering.steps import SteeringState, initial_steering_state, steering_bonus
from nmt.models.incremental import Cache, InferenceModel, SourceCache, decode_step, empty_cache, encode, project_sources

SEARCH = "search"  # the scope of the loop over tokens in a compiled program's names


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TargetRules:
    """Rules that all sentences of a request share: tokens of targets, how they are chosen, when a search ends."""

    end: Int[Array, ""]  # the token that ends a target
    allowed: Bool[Array, " V"]  # tokens that may be generated
    choice: ChoiceRules
    most_ended: Int[Array, ""]  # hypotheses of a sentence that have ended when its search does
    bounded: Bool[Array, ""]  # whether a search ends where no hypothesis can still become one of the best


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowLimits:
    """How long the target of each row may be, how lengths are weighed, and what its choices depend on."""

    length: Int[Array, " B"]  # most tokens of a hypothesis, its end not counted; 0 in rows that hold no sentence
    least: Int[Array, " B"]  # least tokens of a hypothesis, its end not counted; at least 1
    length_penalty: Float[Array, " B"]  # exponent of the length normalisation
    length_base: Float[Array, " B"]  # see `normaliser`
    choice: RowChoice
    coverage_penalty: Float[Array, " B"] | None = None  # weight of `coverage_score`; None: it is not computed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowInputs:
    """Everything of a row that no step changes."""

    source: SourceCache
    limits: RowLimits


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Finished:
    """The F best finished hypotheses of each row, best first."""

    score: Float[Array, "B F"]  # normalised; -inf where there are fewer
    log_probability: Float[Array, "B F"]  # of the model, the end counted
    length: Int[Array, "B F"]  # end not counted
    tokens: Int[Array, "B F T"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SearchState:
    """A batch of searches: W live hypotheses a row, and apart from them the finished ones."""

    position: Int[Array, " B"]  # tokens of the live hypotheses of each row, the position of the next
    token: Int[Array, "B W"]  # newest token of each hypothesis
    score: Float[Array, "B W"]  # log probability, or that and penalties; -inf where no hypothesis lives
    log_probability: Float[Array, "B W"]  # of the model
    tokens: Int[Array, "B W T"]
    ancestor: Int[Array, "B W T"]  # see `ancestry_bias`
    coverage: Float[Array, "B W S"] | None  # attention that source tokens have had; None without a penalty for it
    steering: SteeringState | None  # None: searches are not steered
    cache: Cache
    ended: Int[Array, " B"]  # hypotheses that have ended
    finished: Finished

    @property
    def live(self) -> Bool[Array, " B"]:
        """Whether a row still has live hypotheses, bool [B]."""
        return (self.score > -jnp.inf).any(axis=1)


def normaliser(
    length: Num[Array, "*any"], exponent: Float[Array, "*any"], base: Float[Array, "*any"]
) -> Float[Array, "*any"]:
    """Return ((base + length) / (base + 1)) ** exponent; the end is part of the length.

    With a base of 5 it is GNMT's normaliser (Wu et al. 2016, section 7), with 0 a power of the length.
    """
    return ((base + length) / (base + 1.0)) ** exponent


def coverage_score(coverage: Float[Array, "B W S"], length: Int[Array, " B"]) -> Float[Array, "B W"]:
    """Return GNMT's coverage penalty with a weight of 1 (Wu et al. 2016, section 7): 0 where nothing is left out.

    Args:
      coverage: float32 [B,W,S], the sum of the attention of all target tokens to each source token.
      length: int32 [B], tokens of each source.
    """
    real = jnp.arange(coverage.shape[2]) < length[:, None, None]
    return jnp.where(real, jnp.log(jnp.clip(coverage, 1e-10, 1.0)), 0.0).sum(axis=2)


def empty_state(model: InferenceModel, rows: int, beam: int, kept: int, steps: int) -> SearchState:
    """Return a state without any sentence, for so many rows (B), hypotheses (W, and F finished) and tokens (T)."""
    return SearchState(
        position=jnp.zeros(rows, jnp.int32),
        token=jnp.zeros((rows, beam), jnp.int32),
        score=jnp.full((rows, beam), -jnp.inf),
        log_probability=jnp.full((rows, beam), -jnp.inf),
        tokens=jnp.zeros((rows, beam, steps), jnp.int32),
        ancestor=jnp.zeros((rows, beam, steps), jnp.int32),
        coverage=None,
        steering=None,
        cache=empty_cache(model, rows, beam, steps),
        ended=jnp.zeros(rows, jnp.int32),
        finished=Finished(
            score=jnp.full((rows, kept), -jnp.inf),
            log_probability=jnp.full((rows, kept), -jnp.inf),
            length=jnp.zeros((rows, kept), jnp.int32),
            tokens=jnp.zeros((rows, kept, steps), jnp.int32),
        ),
    )


def start_search(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    begin: Int[Array, " B"],
    limits: RowLimits,
    *,
    beam: int,
    kept: int,
) -> tuple[RowInputs, SearchState]:
    """Encode sources, and return where their searches begin.

    Args:
      model: the model.
      source: int32 [B,S], one sentence a row.
      length: int32 [B], tokens of each source.
      begin: int32 [B], the token that starts each target.
      limits: lengths that are allowed.
      beam: W, live hypotheses of each row.
      kept: F, finished hypotheses wanted of each row.

    Returns:
      The inputs of the rows, and a state without a token, whose T is 1: all hypotheses of a row are the empty one.
    """
    inputs = RowInputs(project_sources(model, encode(model, source, length)), limits)
    state = empty_state(model, source.shape[0], beam, kept, 1)
    score = jnp.broadcast_to(jnp.where(limits.length > 0, 0.0, -jnp.inf)[:, None], state.score.shape)
    token = jnp.broadcast_to(begin[:, None], state.token.shape)
    coverage = None if limits.coverage_penalty is None else jnp.zeros((*score.shape, source.shape[1]))
    steering = limits.choice.steering
    steered = None if steering is None else initial_steering_state(steering, beam)
    state = replace(state, token=token, score=score, log_probability=score, coverage=coverage, steering=steered)
    return inputs, state


def _write(table: Int[Array, "B W T"], column: Int[Array, "B W"], position: Int[Array, " B"]) -> Int[Array, "B W T"]:
    """Write a column [B,W] into a table [B,W,T], in each row at its position [B]; nothing where that is T or more."""
    here = jnp.arange(table.shape[2]) == position[:, None]
    return jnp.where(here[:, None], column[..., None], table)


def _take(table: Int[Array, "B W T"], index: Int[Array, "B F"]) -> Int[Array, "B F T"]:
    """Take hypotheses [B,F] from a table [B,W,T]."""
    return jnp.take_along_axis(table, index[..., None], axis=1)


def _finish(
    finished: Finished,
    score: Float[Array, "B W"],
    log_probability: Float[Array, "B W"],
    length: Int[Array, " B"],
    tokens: Int[Array, "B W T"],
) -> Finished:
    """Add hypotheses of normalised scores [B,W], lengths [B] and tokens [B,W,T]; keep the F best."""
    best, place = top_k(jnp.concatenate([finished.score, score], axis=1), finished.score.shape[1])
    lengths = jnp.broadcast_to(length[:, None], score.shape)

    def keep(before: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.take_along_axis(jnp.concatenate([before, new], axis=1), place, axis=1)

    return Finished(
        best,
        keep(finished.log_probability, log_probability),
        keep(finished.length, lengths),
        _take(jnp.concatenate([finished.tokens, tokens], axis=1), place),
    )


def _advance(model: InferenceModel, inputs: RowInputs, targets: TargetRules, state: SearchState) -> SearchState:
    """Extend every live hypothesis by one token.

    Of all extensions of a row's hypotheses the W best survive, and those of them that end are finished: with W = 1
    this is greedy search. A row is done when all its scores are -inf, see `_is_done`.
    """
    position, limits = state.position, inputs.limits
    own = jnp.broadcast_to(jnp.arange(state.token.shape[1], dtype=jnp.int32), state.token.shape)
    ancestor = _write(state.ancestor, own, position)
    penalty, live = limits.coverage_penalty, state.score > -jnp.inf
    with jax.named_scope("decoder"):
        logits, cache, attention = decode_step(
            model, state.token, position, live, ancestor, inputs.source, state.cache, penalty is not None
        )
    chosen = choose_extensions(
        targets.choice,
        limits.choice,
        Hypotheses(StepContext(position, state.tokens), state.score, state.log_probability, state.steering),
        logits,
        Permission(targets.allowed, targets.end, position >= limits.least, position < limits.length, limits.length),
    )
    token, tokens = chosen.token, _take(state.tokens, chosen.parent)
    ended = (token == targets.end) & (chosen.score > -jnp.inf)
    score = chosen.score - _bonuses(limits, chosen.steering)[0]
    complete = score / normaliser(position + 1.0, limits.length_penalty, limits.length_base)[:, None]
    coverage = state.coverage
    if coverage is not None and attention is not None and penalty is not None:
        coverage = jnp.take_along_axis(coverage + attention, chosen.parent[..., None], axis=1)
        complete += penalty[:, None] * coverage_score(coverage, inputs.source.length)
    finished = _finish(state.finished, jnp.where(ended, complete, -jnp.inf), chosen.log_probability, position, tokens)
    state = replace(
        state,
        position=position + 1,
        token=token,
        score=jnp.where(ended, -jnp.inf, chosen.score),
        log_probability=chosen.log_probability,
        tokens=_write(tokens, token, position),
        ancestor=_take(ancestor, chosen.parent),
        coverage=coverage,
        steering=chosen.steering,
        cache=cache,
        ended=state.ended + ended.sum(axis=1),
        finished=finished,
    )
    done = _is_done(limits, targets, state)
    return replace(state, score=jnp.where(done[:, None], -jnp.inf, state.score))


def _is_done(limits: RowLimits, targets: TargetRules, state: SearchState) -> Bool[Array, " B"]:
    """Return whether the search of a row ends here: enough hypotheses have ended, or no live one can be better.

    That is so when none can beat the worst of the finished ones that are kept: a score only falls, by penalties too,
    and is divided by at most the longest one's normaliser. Phrases that are preferred may raise it.
    """
    longest = normaliser(limits.length + 1.0, limits.length_penalty, limits.length_base)
    held, gain = _bonuses(limits, state.steering)
    bound = (state.score - held + gain).max(axis=1) / longest
    surpassed = targets.bounded & (bound <= state.finished.score[:, -1])
    return surpassed | (state.ended >= targets.most_ended)


def _bonuses(
    limits: RowLimits, state: SteeringState | None
) -> tuple[Float[Array, "B W"], Float[Array, "B W"]] | tuple[float, float]:
    """Return the bonuses that do not count in the end, and those still possible; see `steering_bonus`."""
    steering = limits.choice.steering
    return (0.0, 0.0) if steering is None or state is None else steering_bonus(steering, state)


def run_search(
    model: InferenceModel,
    inputs: RowInputs,
    targets: TargetRules,
    state: SearchState,
    most_steps: Int[Array, ""],
    most_idle: Int[Array, ""],
) -> SearchState:
    """Search until a row has no room for another token, or so many rows are done, or so many steps are taken.

    Args:
      model: the model.
      inputs: the rows.
      targets: tokens that are allowed.
      state: where the search stands.
      most_steps: int32 [], steps after which it stops.
      most_idle: int32 [], rows without a live hypothesis with which it stops; at most B.
    """
    room = state.tokens.shape[2]

    def goes_on(carry: tuple[Int[Array, ""], SearchState]) -> Bool[Array, ""]:
        steps, state = carry
        fits = (~state.live | (state.position < room)).all()
        return (steps < most_steps) & ((~state.live).sum() < most_idle) & fits

    def advance(carry: tuple[Int[Array, ""], SearchState]) -> tuple[Int[Array, ""], SearchState]:
        steps, state = carry
        return steps + 1, _advance(model, inputs, targets, state)

    with jax.named_scope(SEARCH):
        return jax.lax.while_loop(goes_on, advance, (jnp.int32(0), state))[1]
