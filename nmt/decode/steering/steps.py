"""Steering inside a search: prefixes and constraints of rows, applied to the logits of a step."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nmt.decode.steering.constraints import (
    Constraints,
    ConstraintState,
    WordEdges,
    advance_constraints,
    constraint_bonus,
    initial_constraint_state,
    steer_constraints,
)
from nmt.decode.steering.prefix import (
    PieceOrder,
    PrefixState,
    TargetPrefixes,
    advance_prefixes,
    apply_prefixes,
    initial_prefix_state,
    inside_prefix,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SteeringTokens:
    """The tokens of the vocabulary, as steering sees them."""

    words: WordEdges
    order: PieceOrder


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowSteering:
    """The steering of each row; parts that are None are not compiled."""

    constraints: Constraints | None = None
    prefixes: TargetPrefixes | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SteeringState:
    """How far hypotheses are."""

    constraints: ConstraintState | None = None
    prefixes: PrefixState | None = None


class SteeredLogits(NamedTuple):
    """Logits that are chosen by, and the hypotheses that were made to go on with a constraint."""

    logits: Float[Array, "B W Q"]
    forced: Bool[Array, "B W"]


def initial_steering_state(steering: RowSteering, beam: int) -> SteeringState:
    """Return the state of the W hypotheses of each row before their first token."""
    return SteeringState(
        None if steering.constraints is None else initial_constraint_state(steering.constraints, beam),
        None if steering.prefixes is None else initial_prefix_state(steering.prefixes, beam),
    )


def steer_logits(
    tokens: SteeringTokens,
    steering: RowSteering,
    state: SteeringState,
    position: Int[Array, " B"],
    limit: Int[Array, " B"],
    end: Int[Array, ""],
    logits: Float[Array, "B W Q"],
    own: Float[Array, "B W Q"],
) -> SteeredLogits:
    """Return the logits that tokens are chosen by.

    Args:
      tokens: the tokens of the vocabulary.
      steering: the prefixes and constraints.
      state: how far the hypotheses are.
      position: int32 [B], tokens that the hypotheses of each row have.
      limit: int32 [B], most tokens that they may have, the end not counted.
      end: int32 [], the token that ends a hypothesis.
      logits: float32 [B,W,Q], as other rules leave them.
      own: float32 [B,W,Q], the model's, -inf for tokens that may never be generated.
    """
    forced = jnp.zeros(logits.shape[:2], bool)
    result = logits
    if steering.constraints is not None:
        assert state.constraints is not None
        steered = steer_constraints(
            steering.constraints, tokens.words, state.constraints, own, limit - position - 1, end
        )
        # Other rules do not stand in the way of what must be.
        result = jnp.where((steered.forced | steered.tight)[..., None], own, logits) + steered.bias
        forced = steered.forced
    if steering.prefixes is not None:
        assert state.prefixes is not None
        inside = inside_prefix(steering.prefixes, state.prefixes, position)
        forced &= ~inside
        result = apply_prefixes(steering.prefixes, tokens.order, state.prefixes, position, result, own)
    stuck = ~(result > -jnp.inf).any(axis=-1)  # a hypothesis may always end where nothing else is left
    return SteeredLogits(result.at[:, :, end].set(jnp.where(stuck, own[:, :, end], result[:, :, end])), forced)


def advance_steering(
    tokens: SteeringTokens,
    steering: RowSteering,
    state: SteeringState,
    forced: Bool[Array, "B W"],
    position: Int[Array, " B"],
    parent: Int[Array, "B _"],
    token: Int[Array, "B _"],
) -> SteeringState:
    """Return the state of hypotheses that extend others by a token.

    Args:
      tokens: the tokens of the vocabulary.
      steering: the prefixes and constraints.
      state: the state of the hypotheses before.
      forced: bool [B,W], as `steer_logits` returned it.
      position: int32 [B], tokens that the hypotheses of each row had.
      parent: int32 [B,.], the hypothesis that each extends.
      token: int32 [B,.], the token that it adds.
    """
    constraints, prefixes = state.constraints, state.prefixes
    if steering.constraints is not None and constraints is not None:
        constraints = advance_constraints(steering.constraints, tokens.words, constraints, forced, parent, token)
    if steering.prefixes is not None and prefixes is not None:
        prefixes = advance_prefixes(steering.prefixes, tokens.order, prefixes, position, parent, token)
    return SteeringState(constraints, prefixes)


def steering_bonus(steering: RowSteering, state: SteeringState) -> tuple[Float[Array, "B W"], Float[Array, "B W"]]:
    """Return the bonus in the score of each hypothesis that all of its row will have, and the most it can still gain.

    The first is that of required constraints, which say nothing of how good a hypothesis is: it is taken off again
    where one that has ended is compared with others. The second is that of the others.
    """
    if steering.constraints is None or state.constraints is None:
        rows = state.prefixes.written.shape if state.prefixes is not None else (0, 0)
        return jnp.zeros(rows), jnp.zeros(rows)
    return constraint_bonus(steering.constraints, state.constraints)
