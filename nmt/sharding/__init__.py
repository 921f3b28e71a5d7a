"""Meshes, logical axes, and GShard's annotation API: `shard`, `split`, `replicate` (GShard, section 3.2).

Model code names the logical axes of its arrays; the table of a mesh preset (recipes/meshes/) alone says over which mesh
axes they are split. Annotations decide where a value is computed and never change the value: the same program runs on
one device and on thousands.
"""

from nmt.sharding.annotate import einsum, is_explicit, left_to_xla, replicate, shard, shard_count, split, store
from nmt.sharding.axes import LOGICAL_AXES, AxisRules, active_rules, named_sharding, partition_spec
from nmt.sharding.mesh import Layout, make_layout, make_mesh, one_device, platform
from nmt.sharding.mesh_presets import MeshPreset, load_mesh_preset

__all__ = [
    "LOGICAL_AXES",
    "AxisRules",
    "Layout",
    "MeshPreset",
    "active_rules",
    "einsum",
    "is_explicit",
    "left_to_xla",
    "load_mesh_preset",
    "make_layout",
    "make_mesh",
    "named_sharding",
    "one_device",
    "partition_spec",
    "platform",
    "replicate",
    "shard",
    "shard_count",
    "split",
    "store",
]
