"""Trying meshes, rematerialisation and accumulation, each in a process of its own, and ranking what fits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nmt.config import Recipe
from nmt.plan.memory import EXACT
from nmt.plan.topology import Topology

_REMAT = ("none", "moe", "local", "full")  # from the fastest to what needs the least memory


@dataclass(frozen=True)
class Choice:
    """What is tried, as arguments over those of the recipe."""

    mesh: tuple[str, ...]
    remat: str
    accumulate: int

    @property
    def arguments(self) -> tuple[str, ...]:
        """The `key=value` arguments."""
        return (*self.mesh, f"model.remat={self.remat}", f"train.accumulate={self.accumulate}")


@dataclass(frozen=True)
class Found:
    """What became of a choice."""

    choice: Choice
    plan: dict[str, Any] | None  # as `nmt.plan.planning.as_json`; None where it is impossible
    reason: str = ""  # why it is

    @property
    def fits(self) -> bool:
        """Whether it fits the memory of a device."""
        return self.plan is not None and bool(self.plan["fits"])

    @property
    def seconds(self) -> float:
        """The estimated step, one thing after the other; the work where the chip's figures are not published."""
        assert self.plan is not None
        roofline = self.plan.get("roofline")
        return float(roofline["step_seconds_at_most"] if roofline else self.plan["flops_per_device"])


def meshes(recipe: Recipe, devices: int) -> list[tuple[str, ...]]:
    """Return meshes worth a try: the recipe's own; experts over all devices, or over fewer and hidden units too."""
    own: tuple[str, ...] = ()
    found = [own]
    experts = recipe.model.moe.experts if recipe.model.moe else 1
    for model in (1, 2, 4, 8):
        if devices % model or recipe.model.heads % model or recipe.model.hidden % model:
            continue
        expert = max(size for size in range(1, devices // model + 1) if devices // model % size == experts % size == 0)
        data = devices // model // expert
        found.append(("mesh.preset=expert", f"mesh.data={data}", f"mesh.expert={expert}", f"mesh.model={model}"))
    if devices % 8 == 0:
        found.append(("mesh.preset=expert_fsdp", "mesh.fsdp=8"))
    return found


def search(recipe: Recipe, topology: Topology, arguments: Sequence[str], tell: Callable[[Found], None]) -> list[Found]:
    """Try one choice after the other; return those that fit, the fastest first.

    With one mesh less is kept from one attempt to the next until it fits, and only then the batch is computed in parts:
    what keeps less than what fits is slower.

    Args:
      recipe: the recipe.
      topology: the devices.
      arguments: those of nmt-plan that say recipe, topology and keys.
      tell: told what became of every choice.
    """
    fitting, programs = [], set()
    for mesh in meshes(recipe, topology.devices):
        for choice in _ladder(recipe, mesh):
            found = attempt(choice, arguments)
            tell(found)
            if found.plan is None:
                break
            program = (json.dumps(found.plan["mesh"]), choice.remat, choice.accumulate)
            if program in programs:
                break
            programs.add(program)
            if found.fits:
                fitting.append(found)
            if found.fits or _is_hopeless(found.plan):
                break
    return sorted(fitting, key=lambda found: found.seconds)


def _is_hopeless(plan: dict[str, Any]) -> bool:
    """Return whether what is there before the step is too much already."""
    before = sum(plan["memory_by_class"].get(name, 0) for name in EXACT)
    return plan["hbm_bytes"] is not None and before > plan["hbm_bytes"]


def _ladder(recipe: Recipe, mesh: tuple[str, ...]) -> Iterator[Choice]:
    moe = recipe.model.moe is not None
    levels = [level for level in _REMAT if moe or level not in ("moe", "local")]
    for level in levels:
        yield Choice(mesh, level, recipe.train.accumulate)
    for more in (2, 4, 8):
        parts = recipe.train.accumulate * more
        if recipe.rows % parts == 0:
            yield Choice(mesh, levels[-1], parts)


def attempt(choice: Choice, arguments: Sequence[str]) -> Found:
    """Plan a choice in a process of its own, whose memory is given back."""
    given = [argument for argument in arguments if not argument.startswith(("mesh.", "model.remat=", "train.accum"))]
    kept = [argument for argument in arguments if argument.startswith("mesh.")] if not choice.mesh else []
    command = [sys.executable, "-m", "nmt.cli.plan", *given, *kept, *choice.arguments, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy(), check=False)
    if done.returncode in (0, 1) and done.stdout.strip():
        return Found(choice, json.loads(done.stdout))
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return Found(choice, None, lines[-1].removeprefix("nmt-plan: error: ") if lines else "no reason given")
