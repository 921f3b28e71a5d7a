"""Beam search over one batch of fixed shape: a state, a step, a loop."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from nmt.decode.selection import best_extensions, top_k
from nmt.models.incremental import Cache, InferenceModel, Memory, decode_step, empty_cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rules:
    """What the search obeys."""

    begin: jax.Array  # int32 [], the token that starts a target
    allowed: jax.Array  # bool [V], tokens that may be generated
    limit: jax.Array  # int32 [B], most tokens of a hypothesis, its end not counted; 0 in rows that hold no sentence
    length_penalty: jax.Array  # float32 [], exponent of GNMT's length normalisation


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A batch of searches after `step` tokens. F finished hypotheses are kept, apart from the K live ones."""

    step: jax.Array  # int32 []
    token: jax.Array  # int32 [B,K], newest token of each hypothesis
    score: jax.Array  # float32 [B,K], log probability; -inf where no hypothesis lives
    tokens: jax.Array  # int32 [B,K,T]
    ancestor: jax.Array  # int32 [B,K,T], see `ancestry_bias`
    cache: Cache
    finished_score: jax.Array  # float32 [B,F], normalised, best first; -inf where there is none
    finished_length: jax.Array  # int32 [B,F], end not counted
    finished_tokens: jax.Array  # int32 [B,F,T]


def normaliser(length: jax.Array, exponent: jax.Array) -> jax.Array:
    """Return GNMT's ((5 + length) / 6) ** exponent (Wu et al. 2016, section 7); the end is counted in the length."""
    return ((5.0 + length) / 6.0) ** exponent


def start(model: InferenceModel, rules: Rules, beam: int, kept: int, steps: int) -> State:
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
        finished_score=jnp.full((rows, kept), -jnp.inf),
        finished_length=jnp.zeros((rows, kept), jnp.int32),
        finished_tokens=jnp.zeros((rows, kept, steps), jnp.int32),
    )


def _write(table: jax.Array, column: jax.Array, step: jax.Array) -> jax.Array:
    """Write a column [B,K] into a table [B,K,T] at a step."""
    return jax.lax.dynamic_update_slice(table, column[..., None].astype(table.dtype), (0, 0, step))


def _take(table: jax.Array, index: jax.Array) -> jax.Array:
    """Take hypotheses [B,N] from a table [B,K,T]."""
    return jnp.take_along_axis(table, index[..., None], axis=1)


def _finish(state: State, ended: jax.Array, score: jax.Array, parent: jax.Array, exponent: jax.Array) -> State:
    """Merge the hypotheses that just ended into the finished ones, and keep the best."""
    kept = state.finished_score.shape[1]
    normalised = jnp.where(ended, score / normaliser(state.step + 1.0, exponent), -jnp.inf)
    best, place = top_k(jnp.concatenate([state.finished_score, normalised], axis=1), kept)
    lengths = jnp.concatenate([state.finished_length, jnp.broadcast_to(state.step, parent.shape)], axis=1)
    tokens = jnp.concatenate([state.finished_tokens, _take(state.tokens, parent)], axis=1)
    return replace(
        state,
        finished_score=best,
        finished_length=jnp.take_along_axis(lengths, place, axis=1),
        finished_tokens=_take(tokens, place),
    )


def advance(model: InferenceModel, memory: Memory, rules: Rules, end: int, state: State) -> State:
    """Extend every live hypothesis by one token.

    Of all extensions of a row's hypotheses the K best survive, and those of them that end are finished. So with K = 1
    this is greedy search. A row is done, all its scores -inf, when no live hypothesis can beat the worst kept finished
    one any more: log probability only falls, and is divided by at most the normaliser of the longest hypothesis allowed.
    """
    step, beam = state.step, state.token.shape[1]
    slots = jnp.broadcast_to(jnp.arange(beam), state.token.shape)
    ancestor = _write(state.ancestor, slots, step)
    live = state.score > -jnp.inf
    logits, cache = decode_step(model, state.token, step, live, ancestor, memory, state.cache)
    score, parent, token = best_extensions(
        logits, state.score, rules.allowed, end, jnp.broadcast_to(step > 0, rules.limit.shape), step < rules.limit
    )
    ended = (token == end) & (score > -jnp.inf)
    state = _finish(state, ended, score, parent, rules.length_penalty)
    score = jnp.where(token == end, -jnp.inf, score)
    bound = score.max(axis=1) / normaliser(rules.limit + 1.0, rules.length_penalty)
    done = bound <= state.finished_score[:, -1]
    return replace(
        state,
        step=step + 1,
        token=token,
        score=jnp.where(done[:, None], -jnp.inf, score),
        tokens=_write(_take(state.tokens, parent), token, step),
        ancestor=_take(ancestor, parent),
        cache=cache,
    )


def search(model: InferenceModel, memory: Memory, rules: Rules, *, end: int, beam: int, kept: int, steps: int) -> State:
    """Search until every row is done, or for so many steps (T)."""
    return jax.lax.while_loop(
        lambda state: (state.step < steps) & (state.score > -jnp.inf).any(),
        lambda state: advance(model, memory, rules, end, state),
        start(model, rules, beam, kept, steps),
    )
