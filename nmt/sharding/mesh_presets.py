"""Mesh presets: the axes of a mesh and the logical axes split over them, one YAML file each under recipes/meshes/."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nmt.config.documents import Document, read_document
from nmt.errors import UserError, did_you_mean
from nmt.files import MESHES, find_declaration
from nmt.sharding.axes import LOGICAL_AXES, AxisRules

SLICES: Literal["slices"] = "slices"  # stands for the number of slices where an axis has its size
SIZED = ("data", "fsdp", "expert", "model")  # the axes whose sizes are keys of a recipe
_KEYS = ("description", "axes", "rules", "stored")


@dataclass(frozen=True)
class MeshPreset:
    """The axes of a mesh, and the table from logical axes to them."""

    name: str
    description: str
    axes: dict[str, int | Literal["slices"]]  # outermost first
    rules: AxisRules


def load_mesh_preset(name: str) -> MeshPreset:
    """Return a mesh preset, by name (of recipes/meshes/NAME.yaml) or by path.

    Raises:
      UserError: there is none, or it is wrong; the message has the file, the line and the key.
    """
    path = find_declaration(MESHES, name)
    return _Reader(read_document(path)).preset(path.stem)


@dataclass(frozen=True)
class _Reader:
    document: Document

    def preset(self, name: str) -> MeshPreset:
        values = self.document.values
        for key in values:
            if key not in _KEYS:
                raise self.wrong((key,), f"unknown key {key}{did_you_mean(key, _KEYS)} (known: {', '.join(_KEYS)})")
        for key in ("axes", "rules"):
            if key not in values:
                raise self.wrong((), f"{key} is missing")
        axes = self.axes()
        used, stored = (self.table(key, tuple(axes)) for key in ("rules", "stored"))
        return MeshPreset(name, str(values.get("description") or ""), axes, AxisRules(name, used, stored))

    def axes(self) -> dict[str, int | Literal["slices"]]:
        axes = self.mapping("axes")
        if not axes:
            raise self.wrong(("axes",), f"axes is empty: a mesh has at least one of {', '.join(SIZED)}")
        for name, size in axes.items():
            if name not in SIZED:
                raise self.wrong(
                    ("axes", name), f"unknown mesh axis {name}{did_you_mean(name, SIZED)} (known: {', '.join(SIZED)})"
                )
            whole = isinstance(size, int) and not isinstance(size, bool)
            if size != SLICES and not (whole and (size == -1 or size > 0)):
                raise self.wrong(
                    ("axes", name), f"axes.{name} must be a number of devices, -1 or {SLICES} (not {size!r})"
                )
        return dict(axes)

    def table(self, key: str, axes: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        table: list[tuple[str, tuple[str, ...]]] = []
        for logical, split in self.mapping(key).items():
            place = (key, logical)
            if logical not in LOGICAL_AXES:
                known = f"{did_you_mean(logical, LOGICAL_AXES)} (known: {', '.join(LOGICAL_AXES)})"
                raise self.wrong(place, f"{key}.{logical}: there is no such logical axis{known}")
            names = (split,) if isinstance(split, str) else split or ()
            if not isinstance(names, tuple) or len(set(names)) < len(names) or not set(names) <= set(axes):
                wanted = f"a list of axes of this mesh ({', '.join(axes)}), each once"
                raise self.wrong(place, f"{key}.{logical} must be {wanted} (not {split!r})")
            table.append((logical, names))
        return tuple(table)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.document.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong((key,), f"{key} must be a section (not {value!r})")
        return value

    def wrong(self, path: tuple[str, ...], message: str) -> UserError:
        return UserError(f"{self.document.path}:{self.document.lines.get(path, 1)}: {message}")
