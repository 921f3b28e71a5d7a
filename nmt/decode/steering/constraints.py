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
    owned = constraints.node_owner[:, :, None] == jnp.arange(constraints.length.shape[1])
    return jnp.einsum("bwn,bnc->bwc", nodes.astype(jnp.float32), owned.astype(jnp.float32)) > 0


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


def _need(constraints: Constraints, codes: Int[Array, "B W _ *any"]) -> Int[Array, "B W *any"]:
    """Return the tokens that the required constraints still take, of codes [B,W,C] or [B,W,C,U].

    Only one phrase is counted as begun, since the next token may leave the others.
    """
    more = (1,) * (codes.ndim - 3)
    length, required = (x.reshape(x.shape[0], 1, -1, *more) for x in (constraints.length, constraints.required))
    left = codes // 2
    lacking = required & (left > 0)
    begun = jnp.where(lacking, length - left, 0).max(axis=2)
    return jnp.where(lacking, length, 0).sum(axis=2) - jnp.maximum(begun, 0)


def _bonuses(constraints: Constraints, codes: Int[Array, "B W _ *any"]) -> Float[Array, "B W *any"]:
    """Return the bonus of codes [B,W,C] or [B,W,C,U], summed over the constraints."""
    real = (constraints.length > 0).reshape(codes.shape[0], 1, -1, *(1,) * (codes.ndim - 3))
    number = (real & (codes % 2 == 0)).sum(axis=2)
    return number * constraints.bonus.reshape(-1, *(1,) * (number.ndim - 1))


def _column_codes(
    constraints: Constraints,
    words: WordEdges,
    state: ConstraintState,
    reached: Bool[Array, "B W _"],
    pending: Bool[Array, "B W _"],
) -> tuple[Int[Array, "B W _ _"], Bool[Array, "B W _"]]:
    """Return the codes after each column's token, and the columns that would complete a forbidden phrase."""
    number, columns = constraints.length.shape[1], constraints.token.shape[1]
    fresh = 2 * constraints.length + 1
    boundary = ~words.opens[jnp.maximum(constraints.token, 0)]  # [B,U]
    confirmed = state.met[..., None] | (pending[..., None] & boundary[:, None, None])  # [B,W,C,U]
    otherwise = jnp.where(confirmed, 0, fresh[:, None, :, None])

    owner = jnp.take_along_axis(constraints.node_owner, constraints.edge_target, axis=1)
    ends = jnp.take_along_axis(constraints.node_kind, constraints.edge_target, axis=1) != INNER
    code = jnp.take_along_axis(constraints.node_code, constraints.edge_target, axis=1)
    passes = _take(reached, constraints.edge_source)  # [B,W,E]
    far = jnp.iinfo(jnp.int32).max
    values = jnp.where(passes, code[:, None], far)

    def lowest(value: Array, owner: Array, column: Array) -> Array:
        table = jnp.full((number + 1, columns), far, value.dtype)
        return jax.vmap(lambda value: table.at[owner, column].min(value))(value)

    table = jax.vmap(lowest)(values, owner, constraints.edge_column)
    completes = passes & ends[:, None]
    banned = jax.vmap(lowest)(jnp.where(completes, 0, far), owner, constraints.edge_column)[:, :, number] == 0
    return jnp.minimum(otherwise, table[:, :, :number]), banned & (constraints.token >= 0)[:, None]


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
    codes = _codes(constraints, state, pending)
    need, before = _need(constraints, codes), _bonuses(constraints, codes)  # [B,W]
    column_codes, banned = _column_codes(constraints, words, state, reached, pending)
    column_need = _need(constraints, column_codes)  # [B,W,U]
    real = (constraints.token >= 0)[:, None]

    nearer = real & (column_need < need[..., None]) & ~banned
    lacking = (need > 0) & (room >= 0)[:, None]
    prefers_end = logits[:, :, end] >= logits.max(axis=-1)
    forced = lacking & (prefers_end | state.forced) & nearer.any(axis=-1)
    # Once there is too little room, nothing is enforced any more.
    enforced = need <= room[:, None] + 1

    def possible(needed: Array, is_nearer: Array, opens: Array) -> Array:
        shape = (*need.shape, *(1,) * (needed.ndim - 2))
        fits = (needed <= room.reshape(-1, *(1,) * (needed.ndim - 1))) | ~enforced.reshape(shape)
        return fits & (is_nearer | ~forced.reshape(shape)) & ~(waits.reshape(shape) & opens)

    column_possible = possible(column_need, nearer, words.opens[jnp.maximum(constraints.token, 0)][:, None]) & ~banned
    default, opened = (
        jnp.where(state.met | (pending & boundary), 0, 2 * constraints.length[:, None] + 1)
        for boundary in (True, False)
    )
    nothing = jnp.zeros_like(forced)
    default_possible, opened_possible = (
        possible(_need(constraints, code), nothing, jnp.bool_(opens))
        for code, opens in ((default, False), (opened, True))
    )
    # Should nothing at all be possible, such as where phrases exclude each other, only what is forbidden stays so.
    stuck = lacking & ~(column_possible & real).any(axis=-1) & ~default_possible & ~opened_possible
    column_possible = (column_possible | stuck[..., None]) & ~banned

    def gain(code: Array, is_possible: Array) -> Array:
        own = before.reshape(*before.shape, *(1,) * (code.ndim - 3))
        return jnp.where(is_possible, _bonuses(constraints, code) - own, -jnp.inf)

    plain, inside = gain(default, default_possible | stuck), gain(opened, opened_possible | stuck)
    bias = jnp.where(words.opens, inside[..., None], plain[..., None])
    columns = gain(column_codes, column_possible)
    place = jnp.where(constraints.token >= 0, constraints.token, bias.shape[-1])
    bias = jax.vmap(lambda row, at, value: row.at[:, at].set(value, mode="drop"))(bias, place, columns)
    ends = jnp.where(lacking, -jnp.inf, gain(default, jnp.ones_like(forced)))
    return Steered(bias.at[:, :, end].set(ends), forced)


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
      parent: int32 [B,.], the hypothesis that each extends; there may be more of them than before.
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
