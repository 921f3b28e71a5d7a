"""Meshes, logical axes, and GShard's annotation API: `shard`, `split`, `replicate` (GShard, section 3.2).

Model code names the axes of its arrays by what they are; `RULES` alone says over which mesh axes they are split.
Nothing here changes what is computed, only where: the same program runs on one device and on thousands.
"""

from nmt.sharding.annotate import parts, replicate, shard, split
from nmt.sharding.axes import RULES, named_sharding, partition_spec
from nmt.sharding.mesh import AXES, make_mesh, platform

__all__ = [
    "AXES",
    "RULES",
    "make_mesh",
    "named_sharding",
    "partition_spec",
    "parts",
    "platform",
    "replicate",
    "shard",
    "split",
]
