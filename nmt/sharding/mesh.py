"""The device mesh of a recipe: the devices along each axis, and the table of logical axes that goes with it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, get_abstract_mesh

from nmt.config import MeshConfig
from nmt.errors import UserError
from nmt.sharding.axes import AxisRules, rules_context
from nmt.sharding.mesh_presets import SLICES, MeshPreset, load_mesh_preset

_TYPES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}


@dataclass(frozen=True)
class Layout:
    """A mesh, and the table from logical axes to its axes."""

    mesh: Mesh  # or an AbstractMesh, which has the same attributes but no devices
    rules: AxisRules

    @contextlib.contextmanager
    def use(self) -> Iterator[Mesh]:
        """Set mesh and table for tracing, placement and execution inside the block."""
        mesh = self.mesh
        setting = jax.set_mesh(mesh) if isinstance(mesh, Mesh) else jax.sharding.use_abstract_mesh(mesh)
        with setting, rules_context(self.rules):
            yield mesh


def make_layout(config: MeshConfig | None = None, devices: Sequence[jax.Device] | int | None = None) -> Layout:
    """Arrange devices in the mesh that a recipe asks for.

    Args:
      config: the recipe's `mesh`; None: its defaults.
      devices: the devices, such as those of a `jax.experimental.topologies` description; None: all that there are. A
        number gives a mesh of so many devices that do not exist: things can be traced on it, not run.

    Raises:
      UserError: no such preset, or the sizes do not multiply to the number of devices.
    """
    config = MeshConfig() if config is None else config
    preset = load_mesh_preset(config.preset)
    devices = jax.devices() if devices is None else devices
    count = devices if isinstance(devices, int) else len(devices)
    slices = config.slices or (1 if isinstance(devices, int) else _count_slices(devices))
    sizes = _sizes(preset, config, count, slices)
    types = (_TYPES[config.axis_types],) * len(sizes)
    if isinstance(devices, int):
        abstract = AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=types)
        return Layout(cast(Mesh, abstract), preset.rules)
    return Layout(Mesh(_arranged(devices, sizes, slices), tuple(sizes), axis_types=types), preset.rules)


def platform() -> str:
    """Return the kind of devices that programs are compiled for, such as `cpu` or `tpu`: of the mesh if one is set.

    They need not be here: a program can be compiled for the devices of another machine (`nmt-plan`).
    """
    device = get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def one_device() -> bool:
    """Return whether programs are compiled for one device alone: the mesh has one, or there is no mesh."""
    mesh = get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def make_mesh(devices: Sequence[jax.Device] | None = None, **sizes: int) -> Mesh:
    """Return the mesh of the preset `expert`, given sizes of its axes: for one device, which needs no table.

    Raises:
      UserError: as for `make_layout`.
    """
    return make_layout(MeshConfig(**sizes), devices).mesh


def _sizes(preset: MeshPreset, config: MeshConfig, devices: int, slices: int) -> dict[str, int]:
    """Return the number of devices along each axis."""
    given = {axis: getattr(config, axis) for axis in ("data", "fsdp", "expert", "model")}
    for axis, size in given.items():
        if size is not None and size != 1 and axis not in preset.axes:
            raise UserError(
                f"mesh.{axis}={size}: the preset {preset.name} has no such axis (it has {', '.join(preset.axes)}); "
                "choose another mesh.preset"
            )
    sizes = {
        axis: (slices if default == SLICES else default) if given[axis] is None else given[axis]
        for axis, default in preset.axes.items()
    }
    wanted = f"mesh.preset={preset.name} with " + ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise UserError(f"{wanted}: only one axis may be -1")
    if 0 in sizes.values():
        raise UserError(f"{wanted}: an axis has at least one device")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and devices % fixed == 0:
        sizes[free[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        raise UserError(f"{wanted} does not fit {devices} device(s): the sizes must multiply to that number")
    asked = config.slices is not None or SLICES in preset.axes.values()
    if asked and sizes.get("data", 1) % slices:
        raise UserError(
            f"{wanted}: mesh.data={sizes.get('data', 1)} cannot span {slices} slices: choose a multiple of {slices}"
        )
    return sizes


def _count_slices(devices: Sequence[Any]) -> int:
    """Return the number of slices that the devices report; 1 if they report none."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _arranged(devices: Sequence[Any], sizes: dict[str, int], slices: int) -> np.ndarray:
    """Return devices in an array with a dimension an axis.

    TPUs are arranged along the torus of their network, and slices along the data axis. Where devices do not say where
    they are, as on CPUs, the order they come in is taken: with the data axis outermost, slices of equal size that come
    one after the other are along it too.
    """
    shape = tuple(sizes.values())
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(shape)
    if slices > 1 and sizes.get("data", 1) % slices == 0 and _count_slices(devices) == slices:
        across = tuple(slices if axis == "data" else 1 for axis in sizes)
        inside = tuple(size // parts for size, parts in zip(shape, across, strict=True))
        return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    try:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    except (NotImplementedError, TypeError):  # not every torus is divided, such as 16 x 20 x 28 in 2240 by 4
        return np.asarray(devices).reshape(shape)
