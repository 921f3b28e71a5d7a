"""Devices that take part in a collective: the forms in which XLA writes `replica_groups`.

* lists: `{{0,1},{2,3}}`;
* iota, version 2: `[4,2]<=[8]`, `[2,4]<=[4,2]T(1,0)`: the numbers 0.. in the shape on the right, transposed, then in
  the shape on the left; its rows are the groups (`IotaReplicaGroupList` of XLA);
* a mesh and axes of it, version 3: `mesh['a'=4,'b'=2] {'b'}`: groups run along the axes named. An axis may be a part of
  one, `'a':(1)2`: the size after the parenthesis counts.
"""

import math
import re


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"\[([\d,]*)\]", text)
    return tuple(int(n) for n in found[1].split(",") if n) if found else ()


def group_size(attributes: str, devices: int) -> int:
    """Return how many devices a group has, from the attributes of a collective and the devices of the program."""
    at = attributes.find("replica_groups=")
    if at < 0:
        return devices
    text = attributes[at + len("replica_groups=") :]
    if text.startswith("mesh["):
        return _count_axes_members(text)
    if text.startswith("["):
        return int(_numbers(text.partition("<=")[0])[-1])
    first = re.match(r"\{\{?([\d, ]*)\}", text)
    members = [n for n in first[1].split(",") if n.strip()] if first else []
    return len(members) or devices


def _count_axes_members(text: str) -> int:
    mesh, _, rest = text.partition("]")
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh)}
    axes = re.search(r"\{([^}]*)\}", rest)
    named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", axes[1]) if axes else []
    return math.prod(int(part) if part else sizes.get(name, 1) for name, part in named)
