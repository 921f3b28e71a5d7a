"""The device mesh."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, get_abstract_mesh

from nmt.errors import UserError

AXES = ("data", "expert", "model")


def platform() -> str:
    """Return what kind of devices a program is made for, such as `cpu` or `tpu`: those of the mesh, if there is one.

    They need not be here: a program can be compiled for the devices of another machine (`nmt-plan`).
    """
    device = get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def make_mesh(data: int = 1, expert: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange the devices in a mesh of axes `data`, `expert`, `model`; -1, at most once, takes what is left.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "expert": expert, "model": model}
    wanted = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise UserError(f"{wanted}: only one axis may be -1")
    if 0 in sizes.values():
        raise UserError(f"{wanted}: an axis has at least one device")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise UserError(f"{wanted} does not fit {len(devices)} device(s): the sizes must multiply to that number")
    grid = np.asarray(devices).reshape(tuple(sizes.values()))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
