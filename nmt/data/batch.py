"""The batch: the contract between the data pipeline and the training step."""

from dataclasses import dataclass

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Packed pairs, int32. B rows hold several pairs each; segment 0 is padding, everywhere and only there.

    Segments count the pairs of a row from 1, the same on both sides; positions count from 0 within a pair.
    """

    src: np.ndarray | jax.Array  # [B,S] source tokens: target-language tag, pieces, end
    src_segment: np.ndarray | jax.Array  # [B,S]
    src_position: np.ndarray | jax.Array  # [B,S]
    tgt_in: np.ndarray | jax.Array  # [B,T] target tokens shifted right: begin, pieces
    tgt_out: np.ndarray | jax.Array  # [B,T] target tokens: pieces, end
    tgt_segment: np.ndarray | jax.Array  # [B,T]
    tgt_position: np.ndarray | jax.Array  # [B,T]
    direction: np.ndarray | jax.Array  # [B,T] index into the recipe's directions (0 where padded)
