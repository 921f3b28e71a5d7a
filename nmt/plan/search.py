"""A search over meshes, rematerialisation and accumulation: each compiled in its own process, then ranked."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from nmt.config import MeshConfig, Recipe
from nmt.config.arguments import read_arguments
from nmt.errors import UserError
from nmt.plan.advice import REMAT, can_accumulate
from nmt.plan.memory import EXACT
from nmt.plan.topology import Topology
from nmt.sharding import make_layout
from nmt.sharding.mesh_presets import SIZED, SLICES, load_mesh_preset

_TRIED = ("none", "moe", "local", "full")  # of REMAT, from the fastest to the one with the least memory
SEARCHED = ("model.remat", "train.accumulate")  # and the mesh
_FSDP = 8  # neighbours that share the storage of dense weights
_ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt)\b.*")


@dataclass(frozen=True)
class Choice:
    """One setting to try: arguments besides those on the command line."""

    mesh: tuple[str, ...]
    remat: str
    accumulate: int
    fixed: frozenset[str] = frozenset()  # keys on the command line, which are not repeated

    @property
    def arguments(self) -> tuple[str, ...]:
        """The `key=value` arguments."""
        said = (*self.mesh, f"model.remat={self.remat}", f"train.accumulate={self.accumulate}")
        return tuple(argument for argument in said if argument.partition("=")[0] not in self.fixed)


@dataclass(frozen=True)
class Attempt:
    """The outcome of trying one choice."""

    choice: Choice
    plan: dict[str, Any] | None  # as `nmt.plan.planning.plan_as_json`; None where there is none
    reason: str = ""  # for want of which there is no plan
    impossible: bool = False  # a mistake, such as a mesh that does not divide the model, and no failure of the compiler
    took: float = 0.0  # seconds

    @property
    def fits(self) -> bool:
        """Whether it fits the memory of a device."""
        return self.plan is not None and bool(self.plan["fits"])

    @property
    def seconds(self) -> float:
        """The rank: seconds of a step without overlap, or FLOPs where the chip's figures are not published."""
        assert self.plan is not None
        roofline = self.plan.get("roofline")
        return float(roofline["step_seconds_at_most"] if roofline else self.plan["flops_per_device"])


class Search:
    """A search for the fastest setting that fits: meshes in the order of their likeliness, the recipe's own first.

    On each mesh the recipe's own rematerialisation comes first. If it fits, settings that keep more for the backward
    pass follow for as long as they fit; if not, those that keep less, and then more micro-batches, until one fits.
    Settings that keep still less are slower, and are not tried.

    Args:
      recipe: the recipe.
      topology: the devices.
      arguments: those of nmt-plan that say recipe, topology and keys. Keys of the mesh, `model.remat` and
        `train.accumulate` stay as they are given.
    """

    def __init__(self, recipe: Recipe, topology: Topology, arguments: Sequence[str]):
        self.recipe, self.arguments = recipe, tuple(arguments)
        keys = [argument for argument in arguments if not argument.startswith(("recipe=", "topology="))]
        self.fixed = frozenset(".".join(path) for path in read_arguments(keys))
        self.meshes = meshes(recipe, topology, self.fixed)

    @property
    def most(self) -> int:
        """The most programs that may be compiled."""
        return sum(len(self._levels(sizes)) for sizes in self.meshes.values())

    def run(self) -> Iterator[Attempt]:
        """Try one choice after the other and yield the outcome of each."""
        for mesh, sizes in self.meshes.items():
            yield from self._try(mesh, self._levels(sizes))

    def _levels(self, sizes: dict[str, int]) -> list[tuple[str, int]]:
        """Return pairs of rematerialisation and `train.accumulate` to try on a mesh, most memory first."""
        model, now = self.recipe.model, self.recipe.train.accumulate
        levels = [level for level in REMAT if level == model.remat or level in _TRIED]
        if model.moe is None:
            levels = [level for level in levels if level not in ("moe", "local") or level == model.remat]
        if "model.remat" in self.fixed:
            levels = [model.remat]
        shards = math.prod(size for axis, size in sizes.items() if axis != "model")
        more = [] if "train.accumulate" in self.fixed else [now * 2, now * 4, now * 8]
        micro_batches = [number for number in more if can_accumulate(self.recipe, number, shards)]
        return [(level, now) for level in levels] + [(levels[-1], number) for number in micro_batches]

    def _try(self, mesh: tuple[str, ...], levels: list[tuple[str, int]]) -> Iterator[Attempt]:
        def tried(level: tuple[str, int]) -> Attempt:
            return attempt(Choice(mesh, *level, self.fixed), self.arguments)

        own = levels.index((self.recipe.model.remat, self.recipe.train.accumulate))
        found = tried(levels[own])
        yield found
        if found.impossible or (found.plan is not None and not found.fits and _is_hopeless(found.plan)):
            return
        keeping_more = found.fits
        for level in reversed(levels[:own]) if keeping_more else levels[own + 1 :]:
            found = tried(level)
            yield found
            if found.fits != keeping_more:
                return


def rank(found: Sequence[Attempt]) -> list[Attempt]:
    """Return those that fit, the fastest first."""
    return sorted((one for one in found if one.fits), key=lambda one: one.seconds)


def search_as_json(search: Search, found: Sequence[Attempt], ended: bool) -> dict[str, Any]:
    """Return the JSON object of a search: the plans that fit, the fastest first, and the outcome of every choice."""

    def row(one: Attempt) -> dict[str, Any]:
        plan = one.plan or {}
        sizes = {name: plan[name] for name in ("needed_bytes", "available_bytes") if name in plan}
        reason = {"reason": one.reason} if one.plan is None else {}
        return {"arguments": list(one.choice.arguments), "fits": one.fits, "seconds": one.took} | sizes | reason

    return {
        "recipe": search.recipe.name,
        "ended": ended,
        "ranked": [{"arguments": list(one.choice.arguments), "plan": one.plan} for one in rank(found)],
        "tried": [row(one) for one in found],
    }


def meshes(
    recipe: Recipe, topology: Topology, fixed: frozenset[str] = frozenset()
) -> dict[tuple[str, ...], dict[str, int]]:
    """Return meshes worth a try, as arguments, with the sizes of their axes; the likeliest first, none twice.

    They are the recipe's own; experts over all devices of a slice, or over fewer with hidden units over the rest; and
    dense weights sharded (FSDP). Those that contradict the keys in `fixed` are left out.
    """
    own = recipe.mesh
    found: dict[tuple[str, ...], dict[str, int]] = {}
    seen: set[tuple[Any, ...]] = set()
    for mesh in ({}, *_generated(recipe, topology)):
        config = own if not mesh else MeshConfig.model_validate(own.model_dump() | mesh)
        try:
            sizes = _sizes(config, topology)
        except UserError:
            if not mesh:
                raise
            continue
        if any(_differs(key.removeprefix("mesh."), own, config, sizes) for key in fixed if key.startswith("mesh.")):
            continue
        key = (config.preset, *sorted((axis, size) for axis, size in _splits(recipe, sizes).items() if size > 1))
        if key not in seen:
            seen.add(key)
            found[tuple(f"mesh.{name}={'null' if value is None else value}" for name, value in mesh.items())] = sizes
    return found


def _splits(recipe: Recipe, sizes: dict[str, int]) -> dict[str, int]:
    """Return the sizes of axes that make a difference: without experts their axis splits rows, as data does."""
    if recipe.model.moe is not None or "expert" not in sizes:
        return sizes
    return sizes | {"data": sizes.get("data", 1) * sizes["expert"], "expert": 1}


def _sizes(config: MeshConfig, topology: Topology) -> dict[str, int]:
    """Return the sizes of the axes of a mesh; the devices need not be there, but then they do not tell their slices."""
    if SLICES in load_mesh_preset(config.preset).axes.values():
        config = config.model_copy(update={"slices": config.slices or topology.slices})
    return dict(make_layout(config, topology.devices).mesh.shape)


def _differs(name: str, own: MeshConfig, config: MeshConfig, sizes: dict[str, int]) -> bool:
    """Return whether a configuration with these axis sizes contradicts the recipe's value of a mesh key."""
    value = getattr(own, name)
    if name == "preset":
        return bool(value != config.preset)
    return name in SIZED and value not in (None, -1, sizes.get(name, 1))


def _generated(recipe: Recipe, topology: Topology) -> Iterator[dict[str, Any]]:
    model, devices = recipe.model, topology.devices
    experts = model.moe.experts if model.moe else 1
    inside = devices // topology.slices
    # Sizes that the recipe gives to axes that another preset lacks would be rejected.
    unset = {axis: None for axis in SIZED if getattr(recipe.mesh, axis) is not None}

    def most(count: int, over: int) -> int:
        """Return the most of `count` devices that experts can be spread over, in groups of `over`."""
        return max(
            size for size in range(1, count + 1) if count % size == 0 and (experts == 1 or experts % (size * over) == 0)
        )

    for over in (1, 2, 4, 8):
        if inside % over == 0 and model.heads % over == model.hidden % over == 0:
            expert = 1 if experts == 1 else most(inside // over, 1)
            yield unset | {"preset": "expert", "data": devices // over // expert, "expert": expert, "model": over}
        if over == 1 and inside % _FSDP == 0 and (experts == 1 or experts % _FSDP == 0):
            expert = 1 if experts == 1 else most(inside // _FSDP, _FSDP)
            yield unset | {"preset": "expert_fsdp", "data": devices // _FSDP // expert, "fsdp": _FSDP, "expert": expert}


def _is_hopeless(plan: dict[str, Any]) -> bool:
    """Return whether weights, optimizer and batch alone exceed the memory of a device."""
    before = sum(plan["memory_by_class"].get(name, 0) for name in EXACT)
    return plan["hbm_bytes"] is not None and before > plan["hbm_bytes"]


def attempt(choice: Choice, arguments: Sequence[str]) -> Attempt:
    """Plan a choice in a process of its own: its memory is given back, and its crash does not end the search."""
    command = [sys.executable, "-m", "nmt.cli.plan", *arguments, *choice.arguments, "--json", "-"]
    began = time.monotonic()
    with _ending_together():
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), check=False)
    took = time.monotonic() - began
    if done.returncode in (0, 1) and done.stdout.strip():
        return Attempt(choice, json.loads(done.stdout), took=took)
    return Attempt(choice, None, _reason(done), impossible=done.returncode == 2, took=took)


@contextmanager
def _ending_together() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C: otherwise the process that `subprocess.run` waits for would go on for minutes."""

    def end(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return one line that says why a process gave no plan."""
    if done.returncode < 0:
        return f"ended by signal {-done.returncode}, as for want of this machine's memory"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("nmt-plan: error: ") or _ERROR.match(line)] or lines
    return told[-1].removeprefix("nmt-plan: error: ")[:300] if told else f"exit status {done.returncode}"
