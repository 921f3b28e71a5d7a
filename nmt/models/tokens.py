"""The tokens of a batch: as a stack reads them, and as its layers need to know them besides hidden states."""

from dataclasses import dataclass, field
from enum import Enum

import jax
from jaxtyping import Array, Bool, Int


class Phase(Enum):
    """The purpose of a run of the model; it decides about capacities, noise and statistics."""

    TRAIN = "train"  # capacities as in training, and noise where there is a key
    EVALUATE = "evaluate"  # the development loss: no noise, `eval_capacity_factor`
    INFER = "infer"  # translating: no noise, and no token is ever dropped


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedTokens:
    """One side of a batch of packed pairs, or of single sentences: B rows of S tokens (T of targets)."""

    token: Int[Array, "B S"]
    segment: Int[Array, "B S"]  # number of the pair within its row, from 1; 0 for padding
    position: Int[Array, "B S"]  # place of the token in its sentence, from 0
    direction: Int[Array, "B S"] | None = None  # index into the recipe's directions, where statistics are wanted


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenInfo:
    """Facts about each token of a batch that layers ask for besides hidden states."""

    token: Int[Array, "B S"]  # hash routing chooses experts by it
    real: Bool[Array, "B S"]  # False for padding
    direction: Int[Array, "B S"] | None = None  # index into the recipe's directions, where statistics are wanted
    directions: int = field(default=0, metadata={"static": True})  # number of directions (L); 0 without statistics
    position: Int[Array, "B S"] | None = None  # place in the sentence, for self-attention
    passed_by: Bool[Array, ""] | None = None  # whether sparse layers let all tokens by in this step
