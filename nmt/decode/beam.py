"""Beam search over one batch of a fixed shape: a state, a step, a loop."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from nmt.decode.selection import best_extensions, top_k
from nmt.models.incremental import Cache, InferenceModel, SourceCache, decode_step, empty_cache, encode, project_sources

SEARCH = "search"  # the scope of the loop over tokens in a compiled program's names


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SearchLimits:
    """The tokens that a search may generate, how many of them, and how lengths are weighed."""

    begin: Int[Array, ""]  # the token that starts a target
    end: Int[Array, ""]  # the token that ends it
    allowed: Bool[Array, " V"]  # tokens that may be generated
    length: Int[Array, " B"]  # most tokens of a hypothesis, its end not counted; 0 in rows that hold no sentence
    length_penalty: Float[Array, ""]  # exponent of the length normalisation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Finished:
    """The F best finished hypotheses of each row, best first."""

    score: Float[Array, "B F"]  # normalised; -inf where there are fewer
    length: Int[Array, "B F"]  # end not counted
    tokens: Int[Array, "B F T"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SearchState:
    """A batch of searches after `step` tokens: W live hypotheses a row, and apart from them the finished ones."""

    step: Int[Array, ""]
    token: Int[Array, "B W"]  # newest token of each hypothesis
    score: Float[Array, "B W"]  # log probability; -inf where no hypothesis lives
    tokens: Int[Array, "B W T"]
    ancestor: Int[Array, "B W T"]  # see `ancestry_bias`
    cache: Cache
    finished: Finished


def normaliser(length: Num[Array, "*any"], exponent: Float[Array, ""]) -> Float[Array, "*any"]:
    """Return GNMT's ((5 + length) / 6) ** exponent (Wu et al. 2016, section 7); the end is part of the length."""
    return ((5.0 + length) / 6.0) ** exponent


def _initial_state(model: InferenceModel, limits: SearchLimits, beam: int, kept: int, steps: int) -> SearchState:
    """Return the state before the first token: one live hypothesis in every row that holds a sentence."""
    rows = limits.length.shape[0]
    first = (jnp.arange(beam) == 0) & (limits.length > 0)[:, None]
    return SearchState(
        step=jnp.int32(0),
        token=jnp.full((rows, beam), limits.begin, jnp.int32),
        score=jnp.where(first, 0.0, -jnp.inf),
        tokens=jnp.zeros((rows, beam, steps), jnp.int32),
        ancestor=jnp.zeros((rows, beam, steps), jnp.int32),
        cache=empty_cache(model, rows, beam, steps),
        finished=Finished(
            score=jnp.full((rows, kept), -jnp.inf),
            length=jnp.zeros((rows, kept), jnp.int32),
            tokens=jnp.zeros((rows, kept, steps), jnp.int32),
        ),
    )


def _write(table: Int[Array, "B W T"], column: Int[Array, "B W"], step: Int[Array, ""]) -> Int[Array, "B W T"]:
    """Write a column [B,W] into a table [B,W,T] at a step."""
    return jax.lax.dynamic_update_slice(table, column[..., None], (0, 0, step))


def _take(table: Int[Array, "B W T"], index: Int[Array, "B F"]) -> Int[Array, "B F T"]:
    """Take hypotheses [B,F] from a table [B,W,T]."""
    return jnp.take_along_axis(table, index[..., None], axis=1)


def _finish(
    finished: Finished, score: Float[Array, "B W"], length: Int[Array, ""], tokens: Int[Array, "B W T"]
) -> Finished:
    """Add hypotheses of normalised scores [B,W], one common length and tokens [B,W,T]; keep the F best."""
    best, place = top_k(jnp.concatenate([finished.score, score], axis=1), finished.score.shape[1])
    lengths = jnp.concatenate([finished.length, jnp.broadcast_to(length, score.shape)], axis=1)
    tokens = jnp.concatenate([finished.tokens, tokens], axis=1)
    return Finished(best, jnp.take_along_axis(lengths, place, axis=1), _take(tokens, place))


def _advance(model: InferenceModel, source: SourceCache, limits: SearchLimits, state: SearchState) -> SearchState:
    """Extend every live hypothesis by one token.

    Of all extensions of a row's hypotheses the W best survive, and those of them that end are finished: with W = 1
    this is greedy search. A row is done, all its scores -inf, when no live hypothesis can beat the worst of the
    finished ones that are kept: a log probability only falls, and is divided by at most the longest one's normaliser.
    """
    step = state.step
    own = jnp.broadcast_to(jnp.arange(state.token.shape[1], dtype=jnp.int32), state.token.shape)
    ancestor = _write(state.ancestor, own, step)
    with jax.named_scope("decoder"):
        logits, cache = decode_step(model, state.token, step, state.score > -jnp.inf, ancestor, source, state.cache)
    may_end = jnp.broadcast_to(step > 0, limits.length.shape)
    score, parent, token = best_extensions(
        logits, state.score, limits.allowed, limits.end, may_end, step < limits.length
    )
    tokens = _take(state.tokens, parent)
    ended = token == limits.end
    complete = jnp.where(ended, score / normaliser(step + 1.0, limits.length_penalty), -jnp.inf)
    finished = _finish(state.finished, complete, step, tokens)
    score = jnp.where(ended, -jnp.inf, score)
    bound = score.max(axis=1) / normaliser(limits.length + 1.0, limits.length_penalty)
    done = bound <= finished.score[:, -1]
    return replace(
        state,
        step=step + 1,
        token=token,
        score=jnp.where(done[:, None], -jnp.inf, score),
        tokens=_write(tokens, token, step),
        ancestor=_take(ancestor, parent),
        cache=cache,
        finished=finished,
    )


def beam_search(
    model: InferenceModel,
    source: Int[Array, "B S"],
    length: Int[Array, " B"],
    limits: SearchLimits,
    *,
    beam: int,
    kept: int,
    steps: int,
) -> tuple[Finished, Bool[Array, " B"]]:
    """Search until every row is done, for `steps` tokens at most.

    Args:
      model: the model.
      source: int32 [B,S], one sentence a row.
      length: int32 [B], tokens of each source.
      limits: tokens and lengths that are allowed.
      beam: W, live hypotheses of each row.
      kept: F, finished hypotheses wanted of each row.
      steps: T; rows with a lower limit are done before.

    Returns:
      The finished hypotheses, and whether each row is done, bool [B].
    """
    source_cache = project_sources(model, encode(model, source, length))
    with jax.named_scope(SEARCH):
        state = jax.lax.while_loop(
            lambda state: (state.step < steps) & (state.score > -jnp.inf).any(),
            lambda state: _advance(model, source_cache, limits, state),
            _initial_state(model, limits, beam, kept, steps),
        )
    return state.finished, ~(state.score > -jnp.inf).any(axis=1)
