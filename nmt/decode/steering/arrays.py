"""The steering of sentences as arrays of the few shapes that programs are compiled for."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nmt.data.vocab import Vocabulary
from nmt.decode.selection import COLUMNS
from nmt.decode.steering.constraints import WordEdges
from nmt.decode.steering.pieces import PieceTable
from nmt.decode.steering.prefix import PieceOrder, prefix_sizes, stack_prefixes
from nmt.decode.steering.request import SentenceSteering, Steering, SteeringPlanner
from nmt.decode.steering.rows import constraint_sizes, stack_constraints
from nmt.decode.steering.steps import RowSteering, SteeringTokens

_DEFAULT = Steering()


class SteeringShape(NamedTuple):
    """Room for the constraints and prefixes of a row; None where no row has any."""

    constraints: tuple[int, int, int, int] | None
    prefixes: tuple[int, int, int] | None


class SteeredSentences(NamedTuple):
    """The steering of all sentences of a search."""

    plans: Sequence[SentenceSteering]
    tokens: SteeringTokens


def steering_shape(plans: Sequence[SentenceSteering]) -> SteeringShape:
    """Return room for any of these sentences."""
    constraints, prefixes = (
        [plan.constraints for plan in plans if plan.constraints],
        [plan.prefix for plan in plans if plan.prefix],
    )
    return SteeringShape(
        constraint_sizes(constraints) if constraints else None, prefix_sizes(prefixes) if prefixes else None
    )


def stack_steering(plans: Sequence[SentenceSteering], shape: SteeringShape, rows: int) -> RowSteering:
    """Return the steering of sentences in so many rows (B), the rest of which hold none."""
    padded = [*plans, *[SentenceSteering()] * (rows - len(plans))]
    constraints, prefixes = None, None
    if shape.constraints is not None:
        constraints = stack_constraints([plan.constraints for plan in padded], shape.constraints)
    if shape.prefixes is not None:
        prefixes = stack_prefixes([plan.prefix for plan in padded], shape.prefixes)
    return jax.tree.map(jnp.asarray, RowSteering(constraints, prefixes))


class SteeringCompiler:
    """Makes plans and arrays for the searches of one vocabulary of targets; its pieces are listed once, when needed."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._planner: SteeringPlanner | None = None

    @functools.cached_property
    def table(self) -> PieceTable:
        """The pieces of the vocabulary."""
        return PieceTable(self._vocabulary)

    @functools.cached_property
    def tokens(self) -> SteeringTokens:
        """The tokens of the vocabulary."""
        return steering_tokens(self.table)

    def planner(self, steering: Steering | None) -> SteeringPlanner:
        """Return the planner of a request, the same one for the same request in turn; None is the default one.

        Raises:
          UserError: as `SteeringPlanner`.
        """
        request = _DEFAULT if steering is None else steering
        planner = self._planner
        if planner is None or planner.steering is not request:
            planner = self._planner = SteeringPlanner(request, lambda: self.table)
        return planner

    def sentences(self, plans: Sequence[SentenceSteering]) -> SteeredSentences | None:
        """Return the steering of a search; None if no sentence has any."""
        return SteeredSentences(plans, self.tokens) if any(plans) else None


def steering_tokens(table: PieceTable) -> SteeringTokens:
    """Return the tokens of a vocabulary as steering sees them, in as many columns as logits have."""
    padding = (0, -len(table.written) % COLUMNS)
    opens, closes = (jnp.asarray(np.pad(x, padding)) for x in (table.opens_word, table.closes_word))
    rank = jnp.asarray(np.pad(table.rank, padding, constant_values=-1))
    return SteeringTokens(WordEdges(opens, closes), PieceOrder(rank, jnp.asarray(np.pad(table.size, padding))))
