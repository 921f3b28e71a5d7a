"""Advice for a program that does not fit: the keys of the recipe to change, those that save most memory first."""

from nmt.config import Recipe
from nmt.plan.decoding import Decoding
from nmt.plan.planning import Plan
from nmt.train.accumulation import gradient_bytes

REMAT = ("none", "moe", "offload_moe", "dots", "local", "full")  # from keeping most for the backward pass to least


def knobs(plan: Plan, recipe: Recipe) -> list[str]:
    """Return changes that make a program smaller, those that save most first; never empty."""
    return _decoding_knobs(plan, plan.decoding, recipe) if plan.decoding else _training_knobs(plan, recipe)


def _decoding_knobs(plan: Plan, decoding: Decoding, recipe: Recipe) -> list[str]:
    shards = plan.devices // plan.mesh.get("model", 1)
    found: list[str] = []
    if decoding.rows > shards:
        found.append(f"decode.batch_tokens={recipe.decode.batch_tokens // 2}")
    if decoding.beam > 1:
        found.append(f"decode.beam={decoding.beam // 2}")
    if plan.memory["weights"] > 0.5 * (plan.chip.hbm_bytes or float("inf")):
        return ["more devices", *_copies(plan), *found]
    return [*found, *_copies(plan), "more devices"]


def _training_knobs(plan: Plan, recipe: Recipe) -> list[str]:
    memory, model = plan.memory, recipe.model
    weights, optimizer = memory["weights"] + memory["average"], memory["optimizer"]
    left = (plan.chip.hbm_bytes or float("inf")) - weights - optimizer - gradient_bytes(recipe, memory["weights"])
    smaller = ["train.optimizer.name=adafactor with train.optimizer.beta1=0"] if optimizer > weights else []
    if left < 0:  # whatever is done with a batch
        if model.parameter_dtype == "float32":
            smaller.append("model.parameter_dtype=bfloat16")
        return ["more devices", *smaller, *_copies(plan)]
    found: list[str] = []
    less_kept = REMAT[REMAT.index(model.remat) + 1 :]
    if less_kept:
        found.append(f"model.remat={less_kept[-1]} (now {model.remat})")
    found += smaller
    sums = 0 if recipe.train.accumulate > 1 else memory["weights"]  # summed gradients, about
    if (more := accumulations(plan, recipe)) and left > sums:
        found.append(f"train.accumulate={more[0]}")
    if model.activation_dtype == "float32":
        found.append("model.activation_dtype=bfloat16")
    return [*found, *_copies(plan), "fewer train.tokens_per_batch", "more devices"]


def _copies(plan: Plan) -> list[str]:
    copied = plan.parameters.per_device * plan.devices / plan.parameters.total
    return [f"a mesh that splits more, since parameters are on {copied:.1f} devices each"] if copied > 2 else []


def accumulations(plan: Plan, recipe: Recipe) -> list[int]:
    """Return the larger values that `train.accumulate` can take on the mesh of a plan, smallest first."""
    now = recipe.train.accumulate
    return [
        micro_batches
        for micro_batches in (now * 2, now * 4, now * 8)
        if can_accumulate(recipe, micro_batches, plan.devices // plan.mesh.get("model", 1))
    ]


def can_accumulate(recipe: Recipe, micro_batches: int, shards: int) -> bool:
    """Return whether a batch can be split into so many micro-batches on a mesh that splits rows into so many shards.

    Every shard needs rows of each micro-batch, and whole groups of tokens where `model.moe.group_size` is set.
    """
    rows, left = divmod(recipe.rows, micro_batches)
    if left or rows % shards:
        return False
    moe = recipe.model.moe
    size = moe.group_size if moe else None
    lengths = (recipe.data.source_length, recipe.data.target_length)
    return size is None or all(rows * length % (size * shards) == 0 for length in lengths)
