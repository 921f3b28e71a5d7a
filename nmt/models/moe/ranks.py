"""Ranks within experts: which of an expert's choices a choice is. Who comes first is decided here and nowhere else."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int32

_BLOCK = 128


def ranks_within_experts(
    wanted: Bool[Array, "G N K"], expert: Int[Array, "G N K"], experts: int
) -> Int32[Array, "G N K"]:
    """Return how many wanted choices of the same expert come before each choice; all first choices before any second.

    A running sum of one-hot rows would say the same, and takes as long as everything else in routing together where
    experts are many. So the choices are taken in blocks: inside of a block each is compared with those before it, and
    only the sums of blocks run over the experts.

    Args:
      wanted: the choices that are counted.
      expert: the expert of each choice.
      experts: E.

    Returns:
      The ranks, from 0; meaningless for choices that are not wanted.
    """
    groups, tokens, choices = expert.shape
    block = min(_BLOCK, choices * tokens)
    nobody = jnp.where(wanted, expert, experts).swapaxes(1, 2).reshape(groups, -1)
    missing = -nobody.shape[1] % block
    chosen = jnp.pad(nobody, ((0, 0), (0, missing)), constant_values=experts).reshape(groups, -1, block)
    earlier = jnp.arange(block) < jnp.arange(block)[:, None]
    inside = ((chosen[..., None, :] == chosen[..., None]) & earlier).sum(axis=-1, dtype=jnp.int32)
    block_counts = (chosen[..., None] == jnp.arange(experts)).sum(axis=2, dtype=jnp.int32)  # [G,blocks,E]
    before = jnp.cumsum(block_counts, axis=1) - block_counts
    there = jnp.take_along_axis(before, jnp.minimum(chosen, experts - 1), axis=2)
    flat = (inside + there).reshape(groups, -1)[:, : choices * tokens]
    return flat.reshape(groups, choices, tokens).swapaxes(1, 2)
