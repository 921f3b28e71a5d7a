"""Beam search over one batch of a fixed shape: a state, a step, a loop."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from nmt.decode.selection import best_extensions, top_k
from nmt.models.incremental import Cache, InferenceModel, Memory, decode_step, empty_cache, encode, memory_of

SEARCH = "search"  # the scope of the loop over tokens in a compiled program's names


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """What a search obeys."""

    begin: jax.Array  # int32 [], the token that starts a target
    end: jax.Array  # int32 [], the token that ends it
    allowed: jax.Array  # bool [V], tokens that may be generated
    limit: jax.Array  # int32 [B], most tokens of a hypothesis, its end not counted; 0 in rows that hold no sentence
    length_penalty: jax.Array  # float32 [], exponent of the length normalisation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Finished:
    """The F best finished hypotheses of each row, best first."""

    score: jax.Array  # float32 [B,F], normalised; -inf where there are fewer
    length: jax.Array  # int32 [B,F], end not counted
    tokens: jax.Array  # int32 [B,F,T]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A batch of searches after `step` tokens: K live hypotheses a row, and apart from them the finished ones."""

    step: jax.Array  # int32 []
    token: jax.Array  # int32 [B,K], newest token of each hypothesis
    score: jax.Array  # float32 [B,K], log probability; -inf where no hypothesis lives
    tokens: jax.Array  # int32 [B,K,T]
    ancestor: jax.Array  # int32 [B,K,T], see `ancestry_bias`
    cache: Cache
    finished: Finished


def normaliser(length: jax.Array, exponent: jax.Array) -> jax.Array:
    """Return GNMT's ((5 + length) / 6) ** exponent (Wu et al. 2016, section 7); the end is part of the length."""
    return ((5.0 + length) / 6.0) ** exponent


def _start(model: InferenceModel, rules: Rules, beam: int, kept: int, steps: int) -> State:
    """Return the state before the first token: one live hypothesis in every row that holds a sentence."""
    rows = rules.limit.shape[0]
    first = (jnp.arange(beam) == 0) & (rules.limit > 0)[:, None]
    return State(
        step=jnp.int32(0),
        token=jnp.full((rows, beam), rules.begin, jnp.int32),
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


def _write(table: jax.Array, column: jax.Array, step: jax.Array) -> jax.Array:
    """Write a column [B,K] into a table [B,K,T] at a step."""
    return jax.lax.dynamic_update_slice(table, column[..., None], (0, 0, step))


def _take(table: jax.Array, index: jax.Array) -> jax.Array:
    """Take hypotheses [B,N] from a table [B,K,T]."""
    return jnp.take_along_axis(table, index[..., None], axis=1)


def _finish(finished: Finished, score: jax.Array, length: jax.Array, tokens: jax.Array) -> Finished:
    """Add hypotheses of normalised scores [B,K], one length and tokens [B,K,T]; keep the best."""
    best, place = top_k(jnp.concatenate([finished.score, score], axis=1), finished.score.shape[1])
    lengths = jnp.concatenate([finished.length, jnp.broadcast_to(length, score.shape)], axis=1)
    tokens = jnp.concatenate([finished.tokens, tokens], axis=1)
    return Finished(best, jnp.take_along_axis(lengths, place, axis=1), _take(tokens, place))


def _advance(model: InferenceModel, memory: Memory, rules: Rules, state: State) -> State:
    """Extend every live hypothesis by one token.

    Of all extensions of a row's hypotheses the K best survive, and those of them that end are finished: with K = 1
    this is greedy search. A row is done, all its scores -inf, when no live hypothesis can beat the worst of the
    finished ones that are kept: a log probability only falls, and is divided by at most the longest one's normaliser.
    """
    step = state.step
    slots = jnp.broadcast_to(jnp.arange(state.token.shape[1], dtype=jnp.int32), state.token.shape)
    ancestor = _write(state.ancestor, slots, step)
    with jax.named_scope("decoder"):
        logits, cache = decode_step(model, state.token, step, state.score > -jnp.inf, ancestor, memory, state.cache)
    may_end = jnp.broadcast_to(step > 0, rules.limit.shape)
    score, parent, token = best_extensions(logits, state.score, rules.allowed, rules.end, may_end, step < rules.limit)
    tokens = _take(state.tokens, parent)
    ended = token == rules.end
    complete = jnp.where(ended, score / normaliser(step + 1.0, rules.length_penalty), -jnp.inf)
    finished = _finish(state.finished, complete, step, tokens)
    score = jnp.where(ended, -jnp.inf, score)
    bound = score.max(axis=1) / normaliser(rules.limit + 1.0, rules.length_penalty)
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
    source: jax.Array,
    length: jax.Array,
    rules: Rules,
    *,
    beam: int,
    kept: int,
    steps: int,
) -> tuple[Finished, jax.Array]:
    """Search until every row is done, for so many steps (T) at most.

    Args:
      model: the model.
      source: int32 [B,S], one sentence a row.
      length: int32 [B], tokens of each source.
      rules: what the search obeys.
      beam: K.
      kept: F, hypotheses wanted of each row.
      steps: T; a row whose limit is below needs no more.

    Returns:
      The finished hypotheses, and whether each row is done, bool [B].
    """
    memory = memory_of(model, encode(model, source, length))
    with jax.named_scope(SEARCH):
        state = jax.lax.while_loop(
            lambda state: (state.step < steps) & (state.score > -jnp.inf).any(),
            lambda state: _advance(model, memory, rules, state),
            _start(model, rules, beam, kept, steps),
        )
    return state.finished, ~(state.score > -jnp.inf).any(axis=1)
