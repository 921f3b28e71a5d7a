"""Phrases that hypotheses must have, should have, or must not have: arrays of fixed shapes, row by row.

Each row (sentence) has constraints, each of which is met by any of its phrases. A phrase is an automaton, whose nodes
are places in it and whose edges are pieces (`nmt.decode.steering.pieces`); all automata of a row share one table of
nodes and one of edges. The state of a hypothesis is the set of its nodes and of its met constraints.

The search prefers hypotheses that are in a constraint's phrase or have met it, by a bonus that is lost if a phrase is
left before its end (the soft trie of `nmt.decode.steering`; a potential, so it only moves a phrase within the output).
Besides, where a hypothesis

- would rather end than go on, but lacks a constraint, it is made to begin one;
- has as little room left as its constraints need, every token must bring it nearer to them;

so that no hypothesis ends without what it must have, unless its length limit leaves no room for it from the beginning.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

INNER, PENDING, COMPLETE = 0, 1, 2  # nodes in a phrase, at its end if the word ends as well, and at its end
ALWAYS, AT_WORD_START = 1, 2  # nodes at which phrases begin: anywhere, or where no word is open


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constraints:
    """The constraints of each row.

    Padding is columns of token -1, edges from the last node to itself, which is never reached, and constraints of no
    length, which are met.
    """

    token: Int[Array, "B _"]  # of each column: the tokens that occur in a row's phrases, each once; -1 for none
    edge_column: Int[Array, "B _"]
    edge_source: Int[Array, "B _"]  # a node
    edge_target: Int[Array, "B _"]  # a node
    node_owner: Int[Array, "B _"]  # the constraint that a node belongs to; the number of constraints: it is forbidden
    node_code: Int[Array, "B _"]  # see `_codes`
    node_kind: Int[Array, "B _"]  # INNER, PENDING, COMPLETE
    node_start: Int[Array, "B _"]  # 0, ALWAYS, AT_WORD_START
    length: Int[Array, "B _"]  # of each constraint: tokens that it takes at most; 0 for padding
    required: Bool[Array, "B _"]  # whether a hypothesis must not end without it
    predecessor: Int[Array, "B _"]  # the constraint that must be met before, or -1
    bonus: Float[Array, " B"]  # logarithm of a probability that the search adds for a constraint


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WordEdges:
    """Which tokens begin within a word and which end in one."""

    opens: Bool[Array, " Q"]  # begins with a character of a word
    closes: Bool[Array, " Q"]  # ends with one


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConstraintState:
    """How far each hypothesis is with the constraints of its row."""

    active: Bool[Array, "B W _"]  # nodes that its newest tokens lead to
    met: Bool[Array, "B W _"]  # constraints
    in_word: Bool[Array, "B W"]  # whether its newest token ends with a character of a word
    forced: Bool[Array, "B W"]  # whether it was made to begin a phrase that it has not finished


class Steered(NamedTuple):
    """The biases that constraints add to the logits of a step."""

    bias: Float[Array, "B W Q"]  # -inf for tokens that are not possible
    forced: Bool[Array, "B W"]  # hypotheses that are made to go on with a constraint
    tight: Bool[Array, "B W"]  # hypotheses that have no more room than their constraints need


def initial_constraint_state(constraints: Constraints, beam: int) -> ConstraintState:
    """Return the state of the W hypotheses of each row before their first token."""
    rows = constraints.token.shape[0]
    return ConstraintState(
        active=jnp.zeros((rows, beam, constraints.node_owner.shape[1]), bool),
        met=jnp.broadcast_to((constraints.length == 0)[:, None], (rows, beam, constraints.length.shape[1])),
        in_word=jnp.zeros((rows, beam), bool),
        forced=jnp.zeros((rows, beam), bool),
    )


def _take(values: Array, index: Int[Array, "B _"]) -> Array:
    """Return values [B,W,.] at the places [B,.] of their row."""
    return jax.vmap(lambda row, places: row[:, places])(values, index)


def _pending(constraints: Constraints, active: Bool[Array, "B W _"]) -> Bool[Array, "B W _"]:
    """Return the constraints that are met if the word ends."""
    return _any_of_owner(constraints, active & (constraints.node_kind == PENDING)[:, None])


def _any_of_owner(constraints: Constraints, nodes: Bool[Array, "B W _"]) -> Bool[Array, "B W _"]:
    """Return the constraints that have one of these nodes."""
    owned = constraints.node_owner[:, None, :, None] == jnp.arange(constraints.length.shape[1])
    return (nodes[..., None] & owned).any(axis=2)


def _reached(
    constraints: Constraints, state: ConstraintState, pending: Bool[Array, "B W _"], may_begin: Bool[Array, "B W"]
) -> Bool[Array, "B W _"]:
    """Return the nodes that the next token may leave, the beginnings of phrases among them.

    Wanted phrases begin only in hypotheses that may; forbidden ones always do.
    """
    satisfied = state.met | pending
    ready = (constraints.predecessor < 0)[:, None] | _take(satisfied, jnp.maximum(constraints.predecessor, 0))
    ready = jnp.pad(ready & may_begin[..., None], ((0, 0), (0, 0), (0, 1)), constant_values=True)
    start = constraints.node_start[:, None]
    begins = (start == ALWAYS) | ((start == AT_WORD_START) & ~state.in_word[..., None])
    return state.active | (begins & _take(ready, constraints.node_owner))


def _codes(constraints: Constraints, state: ConstraintState, pending: Bool[Array, "B W _"]) -> Int[Array, "B W _"]:
    """Return how far each constraint is from being met: twice the tokens that it takes, plus 1 if it earns no bonus.

    A node has such a code, too: 0 at the end of a phrase, and no less than that of the beginning where a phrase is
    written in pieces in which the vocabulary would not segment it.
    """
    fresh = 2 * constraints.length + 1
    owned = constraints.node_owner[:, :, None] == jnp.arange(constraints.length.shape[1])  # [B,.,.]
    here = state.active[..., None] & owned[:, None]
    codes = jnp.where(here, constraints.node_code[:, None, :, None], fresh[:, None, None]).min(axis=2)
    return jnp.where(state.met | pending, 0, jnp.minimum(codes, fresh[:, None]))


def _need(constraints: Constraints, codes: Int[Array, "B W _ _"]) -> Int[Array, "B W _"]:
    """Return the tokens that the required constraints still take, of codes [B,W,.,.] of every constraint.

    Only one phrase is counted as begun, since the next token may leave the others.
    """
    length, required = constraints.length[:, None, :, None], constraints.required[:, None, :, None]
    left = codes // 2
    lacking = required & (left > 0)
    begun = jnp.where(lacking, length - left, 0).max(axis=2)
    return jnp.where(lacking, length, 0).sum(axis=2) - begun


def _bonuses(constraints: Constraints, codes: Int[Array, "B W _ _"]) -> Float[Array, "B W _"]:
    """Return the bonus of codes [B,W,.,.], summed over the constraints."""
    real = (constraints.length > 0)[:, None, :, None]
    return (real & (codes % 2 == 0)).sum(axis=2) * constraints.bonus[:, None, None]


def constraint_bonus(
    constraints: Constraints, state: ConstraintState
) -> tuple[Float[Array, "B W"], Float[Array, "B W"]]:
    """Return the bonus that each hypothesis has for required constraints, and the most it can still gain for others."""
    codes = _codes(constraints, state, _pending(constraints, state.active))
    real, has = (constraints.length > 0)[:, None], codes % 2 == 0
    required = constraints.required[:, None]
    held, open_yet = ((real & which).sum(axis=-1) for which in (has & required, ~has & ~required))
    bonus = constraints.bonus[:, None]
    return held * bonus, open_yet * bonus


def _column_codes(
    constraints: Constraints,
    state: ConstraintState,
    reached: Bool[Array, "B W _"],
    pending: Bool[Array, "B W _"],
    opens: Bool[Array, "B _"],
) -> tuple[Int[Array, "B W _ _"], Bool[Array, "B W _"]]:
    """Return the codes after each column's token, and the columns that would complete a forbidden phrase.

    Two more columns stand for all other tokens: those that do not go on with a word, and those that do.
    """
    number, columns = constraints.length.shape[1], opens.shape[1]
    confirmed = state.met[..., None] | (pending[..., None] & ~opens[:, None, None])  # [B,W,.,.]
    otherwise = jnp.where(confirmed, 0, 2 * constraints.length[:, None, :, None] + 1)
    owner = jnp.take_along_axis(constraints.node_owner, constraints.edge_target, axis=1)
    code = jnp.take_along_axis(constraints.node_code, constraints.edge_target, axis=1)
    far = jnp.iinfo(jnp.int32).max
    passed = jnp.where(_take(reached, constraints.edge_source), code[:, None], far)

    def lowest(values: Array, owner: Array, column: Array) -> Array:
        table = jnp.full((number + 1, columns), far, values.dtype)
        return jax.vmap(lambda value: table.at[owner, column].min(value))(values)

    table = jax.lax.optimization_barrier(jax.vmap(lowest)(passed, owner, constraints.edge_column))
    return jnp.minimum(otherwise, table[:, :, :number]), table[:, :, number] == 0  # of nodes at the end of a phrase


def steer_constraints(
    constraints: Constraints,
    words: WordEdges,
    state: ConstraintState,
    logits: Float[Array, "B W Q"],
    room: Int[Array, " B"],
    end: Int[Array, ""],
) -> Steered:
    """Return the biases that the constraints add to the logits of the next token.

    Args:
      constraints: the constraints.
      words: edges of the words of the vocabulary.
      state: how far the hypotheses are.
      logits: float32 [B,W,Q], the model's.
      room: int32 [B], tokens that may be generated after this one, the end not counted; below 0 the end must follow.
      end: int32 [], the token that ends a hypothesis.
    """
    pending = _pending(constraints, state.active)
    # A phrase that was forced is finished before others begin; the end of its word completes it.
    waits = state.forced & (pending & ~state.met).any(axis=-1)
    reached = _reached(constraints, state, pending, ~state.forced | waits)
    rows, tokens = constraints.token.shape[0], jnp.maximum(constraints.token, 0)
    others = jnp.broadcast_to(jnp.array([False, True]), (rows, 2))
    opens = jnp.concatenate([words.opens[tokens], others], axis=1)
    real = jnp.concatenate([constraints.token >= 0, jnp.ones_like(others)], axis=1)[:, None]
    codes, banned = _column_codes(constraints, state, reached, pending, opens)
    # The last column is where the hypothesis is now.
    codes = jnp.concatenate([codes, _codes(constraints, state, pending)[..., None]], axis=3)
    codes = jax.lax.optimization_barrier(codes)
    needs, bonuses = jax.lax.optimization_barrier((_need(constraints, codes), _bonuses(constraints, codes)))
    needs, need = needs[..., :-1], needs[..., -1:]
    gains, after = bonuses[..., :-1] - bonuses[..., -1:], room[:, None, None]

    nearer = real & (needs < need) & ~banned
    lacking = (need > 0) & (after >= 0)
    prefers_end = logits[:, :, end] >= logits.max(axis=-1)
    forced = lacking & (prefers_end | state.forced)[..., None] & nearer.any(axis=-1, keepdims=True)
    # Once there is too little room, nothing is enforced any more.
    fits = (needs <= after) | (need > after + 1)
    possible = real & fits & (nearer | ~forced) & ~(waits[..., None] & opens[:, None]) & ~banned
    # Should nothing at all be possible, such as where phrases exclude each other, only what is forbidden stays so.
    stuck = lacking & ~possible.any(axis=-1, keepdims=True)
    gains = jnp.where(possible | (stuck & real & ~banned), gains, -jnp.inf)

    bias = jnp.where(words.opens, gains[..., -1:], gains[..., -2:-1])
    place = jnp.where(constraints.token >= 0, constraints.token, bias.shape[-1])
    bias = jax.vmap(lambda row, at, value: row.at[:, at].set(value, mode="drop"))(bias, place, gains[..., :-2])
    ends = jnp.where(lacking, -jnp.inf, bonuses[..., -3:-2] - bonuses[..., -1:])[..., 0]
    tight = lacking & (need >= after)
    return Steered(bias.at[:, :, end].set(ends), forced[..., 0], tight[..., 0])


def advance_constraints(
    constraints: Constraints,
    words: WordEdges,
    state: ConstraintState,
    forced: Bool[Array, "B W"],
    parent: Int[Array, "B _"],
    token: Int[Array, "B _"],
) -> ConstraintState:
    """Return the state of hypotheses that extend others by a token.

    Args:
      constraints: the constraints.
      words: edges of the words of the vocabulary.
      state: the state of the hypotheses before.
      forced: bool [B,W], as `steer_constraints` returned it.
      parent: int32 [B,.], the hypothesis that each extends.
      token: int32 [B,.], the token that it adds.
    """
    active, met = (jnp.take_along_axis(x, parent[..., None], axis=1) for x in (state.active, state.met))
    in_word, forced = (jnp.take_along_axis(x, parent, axis=1) for x in (state.in_word, forced | state.forced))
    before = ConstraintState(active, met, in_word, forced)
    pending = _pending(constraints, active)
    reached = _reached(constraints, before, pending, jnp.ones_like(forced))
    edge_token = jnp.take_along_axis(constraints.token, constraints.edge_column, axis=1)
    passes = _take(reached, constraints.edge_source) & (edge_token[:, None] == token[..., None])

    def arrive(passes: Array, target: Array) -> Array:
        empty = jnp.zeros(constraints.node_owner.shape[1], bool)
        return jax.vmap(lambda one: empty.at[target].max(one))(passes)

    active = jax.vmap(arrive)(passes, constraints.edge_target)
    complete = _any_of_owner(constraints, active & (constraints.node_kind == COMPLETE)[:, None])
    met = met | complete | (pending & ~words.opens[token][..., None])
    state = ConstraintState(active, met, words.closes[token], forced)
    codes = _codes(constraints, state, jnp.zeros_like(met))
    begun = (codes < 2 * constraints.length[:, None]) & ~met & constraints.required[:, None]
    return ConstraintState(active, met, state.in_word, forced & begun.any(axis=-1))
