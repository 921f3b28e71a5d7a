"""The arrays of a request: rules that its sentences share, and the limits of each sentence."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from nmt.decode.beam import RowLimits, TargetRules
from nmt.decode.choices import RowChoice, choice_rules
from nmt.decode.options import SearchOptions
from nmt.decode.sampling import sampling_key
from nmt.decode.steering.arrays import SteeringShape, stack_steering
from nmt.decode.steering.request import SentenceSteering
from nmt.decode.steering.steps import SteeringTokens

_NEVER = np.iinfo(np.int32).max


class SpecialTokens(NamedTuple):
    """The special tokens of the vocabulary of targets."""

    begin: int
    end: int
    forbidden: frozenset[int]  # the others that are never generated: padding, unknown, language tags
    unknown: int | None = None  # the one of them that a request may allow


class Sentence(NamedTuple):
    """One sentence that is to be translated."""

    number: int  # in its job
    source: Sequence[int]
    begin: int
    options: SearchOptions
    steering: SentenceSteering | None = None

    @property
    def limit(self) -> int:
        """Return the most tokens of its translation: more than the options say where phrases are forced."""
        return self.options.max_tokens(self.pieces) + (self.steering.room if self.steering else 0)

    @property
    def pieces(self) -> int:
        """How many tokens of the source are text: all but its tag and its end."""
        return len(self.source) - 2


def shared_options(options: SearchOptions) -> SearchOptions:
    """Return options without those that are numbers of each row, which sentences in one set of slots need not share."""
    position = None if options.alternatives is None else 0
    lengths = {"normalisation": "gnmt", "length_penalty": 0.0, "min_length": 1, "min_length_ratio": 0.0}
    covered = float(options.coverage_penalty > 0)
    return replace(options, **lengths, seed=0, alternatives=position, coverage_penalty=covered)  # type: ignore[arg-type]


def target_rules(
    options: SearchOptions, tokens: SpecialTokens, vocabulary: int, steering: SteeringTokens | None = None
) -> TargetRules:
    """Return the rules of a request over a vocabulary of so many tokens (V), for searches that are steered or not."""
    forbidden = (tokens.forbidden | {tokens.begin}) - ({tokens.unknown} if options.unknown != "never" else set())
    allowed = np.isin(np.arange(vocabulary), list(forbidden), invert=True)
    most_ended = _NEVER if options.patience is None else ceil(options.patience * options.beam)
    # A bound on the scores that a hypothesis can still get holds where they only fall.
    bounded = options.early_stopping and options.repetition_penalty >= 1.0
    return TargetRules(
        end=jnp.int32(tokens.end),
        allowed=jnp.asarray(allowed),
        choice=choice_rules(options, steering),
        most_ended=jnp.int32(_NEVER if options.independent else most_ended),
        bounded=jnp.bool_(bounded and not options.independent),
    )


def row_limits(sentences: Sequence[Sentence], rows: int, shape: SteeringShape | None = None) -> RowLimits:
    """Return the limits of sentences in so many rows (B), the rest of which hold none.

    Args:
      sentences: the sentences.
      rows: B.
      shape: room for their steering; None: they have none.
    """
    options = [sentence.options for sentence in sentences]
    covered, choice = [one.coverage_penalty for one in options], RowChoice()
    if options and options[0].sampling:
        keys = [sampling_key(one.options.seed, [one.begin, *one.source]) for one in sentences]
        choice = RowChoice(key=jnp.asarray(np.stack([*keys, *[np.zeros_like(keys[0])] * (rows - len(keys))])))
    elif options and options[0].alternatives is not None:
        choice = RowChoice(alternatives=_column([one.alternatives or 0 for one in options], rows, np.int32))
    if shape is not None:
        plans = [sentence.steering or SentenceSteering() for sentence in sentences]
        choice = replace(choice, steering=stack_steering(plans, shape, rows))
    return RowLimits(
        length=_column([one.limit for one in sentences], rows, np.int32),
        least=_column([one.options.min_tokens(one.pieces) for one in sentences], rows, np.int32),
        length_penalty=_column([one.length_exponent for one in options], rows, np.float32),
        length_base=_column([one.length_base for one in options], rows, np.float32),
        choice=choice,
        coverage_penalty=_column(covered, rows, np.float32) if options and options[0].coverage_penalty > 0 else None,
    )


def _column(values: Sequence[float], rows: int, kind: type[np.number[Any]]) -> Array:
    column = np.zeros(rows, kind)
    column[: len(values)] = values
    return jnp.asarray(column)
