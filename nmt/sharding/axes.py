"""The one table that maps logical axes to mesh axes."""

from jax.sharding import PartitionSpec

RULES: dict[str, tuple[str, ...] | str | None] = {
    # Activations. GShard splits the batch over the devices that hold the experts (section 3.1), so that moving
    # from "tokens of my rows" to "tokens of my experts" is one all-to-all.
    "batch": ("data", "expert"),
    "group": ("data", "expert"),
    "length": None,
    "expert_group": "data",  # groups, in arrays that are already split over experts
    # Parameters, and activations of the same meaning.
    "layers": None,
    "vocab": "model",
    "embed": None,
    "heads": "model",
    "mlp": "model",
    "expert": "expert",
}


def partition_spec(axes: tuple[str | None, ...]) -> PartitionSpec:
    """Return the mesh axes for the logical axes of an array; None is an axis that is never split.

    Raises:
      KeyError: an axis is not in `RULES`.
    """
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))
