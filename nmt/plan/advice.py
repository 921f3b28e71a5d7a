"""What makes a step fit: which keys of the recipe to turn, those that save most first."""

from nmt.config import Recipe
from nmt.plan.planning import Plan

REMAT = ("none", "moe", "dots", "local", "full")  # from what keeps most to what keeps least


def knobs(plan: Plan, recipe: Recipe) -> list[str]:
    """Return what would make a step smaller, the most of it first; at least one thing."""
    memory, model = plan.memory, recipe.model
    weights, optimizer = memory["weights"] + memory["average"], memory["optimizer"]
    found: list[str] = []
    less_kept = REMAT[REMAT.index("moe" if model.remat == "offload_moe" else model.remat) + 1 :]
    if less_kept:
        found.append(f"model.remat={less_kept[-1]} (now {model.remat})")
    if optimizer > weights:
        found.append("train.optimizer.name=adafactor with train.optimizer.beta1=0")
    if more := accumulations(plan, recipe):
        found.append(f"train.accumulate={more[0]}")
    if model.activation_dtype == "float32":
        found.append("model.activation_dtype=bfloat16")
    copied = plan.parameters.per_device * plan.devices / plan.parameters.total
    if copied > 2:
        found.append(f"a mesh that splits more, since parameters are on {copied:.1f} devices each (nmt-plan --search)")
    found.append("fewer train.tokens_per_batch")
    found.append("more devices")
    if weights + optimizer > 0.5 * (plan.chip.hbm_bytes or float("inf")):
        return [*found[-1:], *found[:-1]]
    return found


def accumulations(plan: Plan, recipe: Recipe) -> list[int]:
    """Return the numbers of parts above the present one that a batch can be computed in on a mesh, smallest first."""
    shards = plan.devices // plan.mesh.get("model", 1)
    rows, now = recipe.rows, recipe.train.accumulate
    return [parts for parts in (now * 2, now * 4, now * 8) if rows % parts == 0 and rows // parts % shards == 0]
