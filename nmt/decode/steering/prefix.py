"""Beginnings that translations are given: hard ones, which they keep, and soft ones, which they are drawn to.

A hard prefix fixes tokens, except for its last word if that may go on: a letter at the end of the prefix may be
followed by others, in pieces that also hold what was given (`Verb` in `Verbindung`). So the last word fixes bytes: a
token is possible if it writes some of them and no other, or all that are left and more.

A soft prefix mixes the distribution with one on the prefix's next token, (1 - beta) p + beta, as long as a hypothesis
has followed the prefix (Bapna et al., arXiv:1912.03393, section 4.2; `prefix_bias_beta` of CTranslate2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from nmt.decode.steering.pieces import PieceTable
from nmt.decode.steering.words import is_word_character

SMALLEST = 16  # sizes of arrays are powers of two from here, so that few programs are compiled


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TargetPrefixes:
    """The prefix of each row: tokens, then bytes."""

    token: Int[Array, "B _"]
    length: Int[Array, " B"]  # tokens
    beta: Float[Array, " B"]  # 0: hard
    size: Int[Array, " B"]  # bytes
    within: Int[Array, "B _ _"]  # by bytes that are written: tokens that write some of those left; -1 for none
    low: Int[Array, "B _"]  # ranks of the tokens that write at least all that are left: from `low`,
    high: Int[Array, "B _"]  # below `high`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PieceOrder:
    """The tokens in the order of the bytes that they write."""

    rank: Int[Array, " Q"]
    size: Int[Array, " Q"]  # bytes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PrefixState:
    """How far each hypothesis is with the prefix of its row."""

    follows: Bool[Array, "B W"]  # whether its tokens are those of the prefix so far
    written: Int[Array, "B W"]  # bytes


def initial_prefix_state(prefixes: TargetPrefixes, beam: int) -> PrefixState:
    """Return the state of the W hypotheses of each row before their first token."""
    shape = (prefixes.length.shape[0], beam)
    return PrefixState(jnp.ones(shape, bool), jnp.zeros(shape, jnp.int32))


def _next_token(prefixes: TargetPrefixes, position: Int[Array, " B"]) -> Int[Array, " B"]:
    place = jnp.minimum(position, prefixes.token.shape[1] - 1)
    return jnp.take_along_axis(prefixes.token, place[:, None], axis=1)[:, 0]


def inside_prefix(prefixes: TargetPrefixes, state: PrefixState, position: Int[Array, " B"]) -> Bool[Array, "B W"]:
    """Return which hypotheses get their token at these positions [B] from a hard prefix."""
    unfinished = (position < prefixes.length)[:, None] | (state.written < prefixes.size[:, None])
    return (prefixes.beta == 0)[:, None] & unfinished


def apply_prefixes(
    prefixes: TargetPrefixes,
    order: PieceOrder,
    state: PrefixState,
    position: Int[Array, " B"],
    logits: Float[Array, "B W Q"],
    own: Float[Array, "B W Q"],
) -> Float[Array, "B W Q"]:
    """Return the logits of a step with the prefixes applied.

    Args:
      prefixes: the prefixes.
      order: the order of the tokens.
      state: how far the hypotheses are.
      position: int32 [B], tokens that the hypotheses of each row have.
      logits: float32 [B,W,Q], with whatever else steers the search.
      own: float32 [B,W,Q], the model's. A hard prefix is not subject to other rules.
    """
    token = _next_token(prefixes, position)
    in_tokens = (position < prefixes.length)[:, None]
    is_next = (jnp.arange(logits.shape[-1]) == token[:, None])[:, None]  # [B,1,Q]
    possible = jnp.where(in_tokens[..., None], is_next, _possible_bytes(prefixes, order, state))
    inside = inside_prefix(prefixes, state, position)
    hard = jnp.where(possible, own, -jnp.inf)

    beta = prefixes.beta[:, None, None]
    total = jax.nn.logsumexp(own, axis=-1, keepdims=True)
    mixed = jnp.logaddexp(logits + jnp.log1p(-beta), total + jnp.log(beta))
    soft = jnp.where(is_next, mixed, logits + jnp.log1p(-beta))
    draws = (beta > 0) & (in_tokens & state.follows)[..., None]
    return jnp.where(inside[..., None], hard, jnp.where(draws, soft, logits))


def _possible_bytes(prefixes: TargetPrefixes, order: PieceOrder, state: PrefixState) -> Bool[Array, "B W Q"]:
    """Return the tokens that agree with the bytes that are left."""
    places = prefixes.low.shape[1]
    written = jnp.minimum(state.written, places - 1)
    low, high = (jnp.take_along_axis(x, written, axis=1)[..., None] for x in (prefixes.low, prefixes.high))
    beyond = (order.rank >= low) & (order.rank < high)
    within = jax.vmap(lambda table, at: table[at])(prefixes.within, written)  # [B,W,.]
    within = jnp.where(within < 0, order.rank.shape[0], within)
    return jax.vmap(jax.vmap(lambda row, at: row.at[at].set(True, mode="drop")))(beyond, within)


def advance_prefixes(
    prefixes: TargetPrefixes,
    order: PieceOrder,
    state: PrefixState,
    position: Int[Array, " B"],
    parent: Int[Array, "B _"],
    token: Int[Array, "B _"],
) -> PrefixState:
    """Return the state of hypotheses that extend others, `parent`, by a token, at these positions [B]."""
    follows, written = (jnp.take_along_axis(x, parent, axis=1) for x in (state.follows, state.written))
    in_tokens = (position < prefixes.length)[:, None]
    follows &= ~in_tokens | (token == _next_token(prefixes, position)[:, None])
    return PrefixState(follows, jnp.where(in_tokens, written, written + order.size[token]))


@dataclass(frozen=True)
class RowPrefix:
    """The prefix of one sentence: tokens, then bytes.

    Attributes:
      tokens: the tokens.
      rest: the bytes.
      within: by bytes that are written: tokens that write some of those left.
      ranks: by bytes that are written: ranks, from and below, of the tokens that write all that are left.
      beta: 0: hard.
    """

    tokens: tuple[int, ...] = ()
    rest: bytes = b""
    within: tuple[tuple[int, ...], ...] = ()
    ranks: tuple[tuple[int, int], ...] = ()
    beta: float = 0.0

    @classmethod
    def encode(cls, text: str, table: PieceTable, beta: float = 0.0) -> "RowPrefix":
        """Return the prefix of a text in normal form, apart from a space at its end, after which another word follows.

        Raises:
          UserError: the vocabulary cannot write it.
        """
        words = text.rstrip()
        if not words:
            return cls()
        if beta > 0 or (words == text and not is_word_character(words[-1])):
            return cls(tuple(table.encode(words)), beta=beta)
        before, _, last = words.rpartition(" ") if words == text else (words, " ", "")
        if last:
            table.encode(last)
        rest = b" " + last.encode()
        left = [rest[start:] for start in range(len(rest))]
        within, ranks = tuple(tuple(table.within(one)) for one in left), tuple(map(table.ranks, left))
        return cls(tuple(table.encode(before)) if before else (), rest, within, ranks)

    def __bool__(self) -> bool:
        return bool(self.tokens or self.rest)

    @property
    def room(self) -> int:
        """Return the tokens that it may take."""
        return len(self.tokens) + len(self.rest)


def prefix_sizes(prefixes: Sequence[RowPrefix]) -> tuple[int, int, int]:
    """Return room for the tokens, bytes and pieces of any of these prefixes, powers of two."""
    pieces = [len(tokens) for one in prefixes for tokens in one.within]
    sizes = [len(one.tokens) for one in prefixes], [len(one.rest) for one in prefixes], pieces
    tokens, rest, within = (max(SMALLEST, 1 << max(max(size, default=0) - 1, 0).bit_length()) for size in sizes)
    return tokens, rest, within


def stack_prefixes(prefixes: Sequence[RowPrefix], sizes: tuple[int, int, int]) -> TargetPrefixes:
    """Return the prefixes of sentences as arrays of NumPy, a row each, with room as of `prefix_sizes`."""
    rows = [_arrays(prefix, sizes) for prefix in prefixes]
    return TargetPrefixes(**{f.name: np.stack([getattr(row, f.name) for row in rows]) for f in fields(TargetPrefixes)})  # type: ignore[arg-type]


def _arrays(prefix: RowPrefix, sizes: tuple[int, int, int]) -> TargetPrefixes:
    tokens, rest, pieces = sizes
    token = np.zeros(tokens, np.int32)
    token[: len(prefix.tokens)] = prefix.tokens
    low, high, within = np.zeros(rest, np.int32), np.zeros(rest, np.int32), np.full((rest, pieces), -1, np.int32)
    for start, (some, ranks) in enumerate(zip(prefix.within, prefix.ranks, strict=True)):
        low[start], high[start] = ranks
        within[start, : len(some)] = some
    return TargetPrefixes(
        token,  # type: ignore[arg-type]
        np.int32(len(prefix.tokens)),  # type: ignore[arg-type]
        np.float32(prefix.beta),  # type: ignore[arg-type]
        np.int32(len(prefix.rest)),  # type: ignore[arg-type]
        within,  # type: ignore[arg-type]
        low,  # type: ignore[arg-type]
        high,  # type: ignore[arg-type]
    )
