"""What layers need to know of the tokens besides their hidden states."""

from dataclasses import dataclass, field
from enum import Enum

import jax


class Phase(Enum):
    """What a model is run for; it decides about capacities, noise and statistics."""

    TRAIN = "train"  # capacities as in training, and noise where there is a key
    EVALUATE = "evaluate"  # the development loss: no noise, `eval_capacity_factor`
    INFER = "infer"  # translating: no noise, and no token is ever dropped


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenInfo:
    """The tokens of a batch, one by one."""

    token: jax.Array  # int32 [B,S], what hash routing goes by
    real: jax.Array  # bool [B,S], False for padding
    direction: jax.Array | None = None  # int32 [B,S], index into the recipe's directions, where statistics are wanted
    directions: int = field(default=0, metadata={"static": True})  # how many there are (D); 0 without statistics
    position: jax.Array | None = None  # int32 [B,S], place in the sequence, which self-attention may go by
    passed_by: jax.Array | None = None  # bool [], whether sparse layers pass all tokens by in this step
