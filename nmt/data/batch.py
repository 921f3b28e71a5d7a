"""The batch: the contract between the data pipeline and the training step."""

from dataclasses import dataclass
from typing import Any

import jax

Array = Any  # np.ndarray on its way to the devices, jax.Array there


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Packed pairs: arrays of int32, B rows of several pairs each.

    Segments number the pairs of a row from 1, the same on both sides; segment 0 is padding, and padding alone.
    Positions count from 0 within a pair.
    """

    src: Array  # [B,S] source tokens: a language's tag, pieces, end
    src_segment: Array  # [B,S]
    src_position: Array  # [B,S]
    tgt_in: Array  # [B,T] target tokens shifted right: begin or the target language's tag, pieces
    tgt_out: Array  # [B,T] target tokens: pieces, end
    tgt_segment: Array  # [B,T]
    tgt_position: Array  # [B,T]
    direction: Array  # [B,T] index into the recipe's directions (0 where padded)
