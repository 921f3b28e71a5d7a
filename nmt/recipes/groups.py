"""Advice on `model.moe.group_size`: every device needs whole groups of tokens to send them to their experts."""

import math

from nmt.config import Recipe


def group_advice(recipe: Recipe, experts: int, devices: int) -> str | None:
    """Return advice where tokens would be gathered on every device instead of being sent to their experts, else None.

    Args:
      recipe: the recipe.
      experts: shards of the experts on the mesh.
      devices: shards of the tokens.
    """
    moe = recipe.model.moe
    if moe is None or experts == 1 or moe.dispatch == "grouped":
        return None
    size = moe.group_size
    if size is not None and all(count % (size * devices) == 0 for count in recipe.slots):
        return None
    now = "null, one group for all of a batch" if size is None else f"{size:,}"
    advice = (
        f"model.moe.group_size is {now}: {devices} devices have no groups of their own, and each gathers all tokens"
    )
    best, rest = divmod(math.gcd(*recipe.slots), devices)
    return advice if rest else f"{advice}; model.moe.group_size={best} would send a token to its experts alone"
