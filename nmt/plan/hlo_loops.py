"""Trip counts: how often the body of a `while` runs.

On CPUs XLA annotates it (`known_trip_count`). On TPUs it does not, but the loops of JAX's scan count from one constant
to another, with which the condition compares: these are read here.
"""

import math
import re
from dataclasses import dataclass

from nmt.plan.hlo_text import Computation, Instruction, Module

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SAME = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "optimization-barrier")
_MIRRORED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "NE": "NE", "EQ": "EQ"}


@dataclass(frozen=True)
class Context:
    """The loop that a body or condition belongs to, by which its parameter is traced to values outside."""

    loop: Instruction
    computation: Computation
    body: Computation
    outer: "Context | None"


def trip_count(loop: Instruction, computation: Computation, outer: Context | None, module: Module) -> int | None:
    """Return how often the body of a loop runs; None where that cannot be told."""
    known = _KNOWN.search(loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations.get(loop.attribute("condition") or "")
    body = module.computations.get(loop.attribute("body") or "")
    if condition is None or body is None:
        return None
    context = Context(loop, computation, body, outer)
    compared = _comparison(condition, module)
    if compared is None:
        return None
    left, right, direction = compared
    index, bound = _element(condition, left), constant(condition, right, context)
    if bound is None:
        index, bound = _element(condition, right), constant(condition, left, context)
        direction = _MIRRORED[direction]
    if index is None or bound is None:
        return None
    first, step = _initial(index, context), _step(body, index, context)
    return _trips(first, bound, step, direction) if first is not None and step else None


def _trips(first: int, bound: int, step: int, direction: str) -> int | None:
    if direction in ("LE", "GE"):
        bound += 1 if direction == "LE" else -1
    upwards = step > 0
    if direction == "EQ" or (direction in ("LT", "LE") and not upwards) or (direction in ("GT", "GE") and upwards):
        return None
    return max(0, math.ceil((bound - first) / step))


def _comparison(condition: Computation, module: Module) -> tuple[str, str, str] | None:
    """Return both sides of a condition's comparison, as names in the condition, and its direction (`LT`, ...)."""
    root = condition.root
    if root.opcode == "compare":
        return root.operands[0], root.operands[1], root.attribute("direction") or ""
    inner = module.computations.get(root.attribute("calls") or "")
    if root.opcode != "fusion" or inner is None or inner.root.opcode != "compare":
        return None
    sides = []
    for name in inner.root.operands:
        side = inner.instructions[name]
        if side.opcode == "parameter":
            sides.append(root.operands[int(side.literal)])
        elif side.opcode == "constant":
            condition.instructions.setdefault(side.name, side)
            sides.append(side.name)
        else:
            return None
    return sides[0], sides[1], inner.root.attribute("direction") or ""


def _followed(computation: Computation, name: str) -> Instruction | None:
    """Return the instruction behind copies and casts."""
    found = computation.instructions.get(name)
    while found is not None and found.opcode in _SAME and found.operands:
        found = computation.instructions.get(found.operands[0])
    return found


def _element(computation: Computation, name: str) -> int | None:
    """Return the index in the computation's parameter that an instruction reads, or None."""
    found = _followed(computation, name)
    if found is None or found.opcode != "get-tuple-element":
        return None
    state = computation.instructions.get(found.operands[0])
    return int(found.attribute("index") or 0) if state is not None and state.opcode == "parameter" else None


def constant(computation: Computation, name: str, context: Context | None) -> int | None:
    """Return the integer that an instruction always yields, or None; loop state that no pass changes is constant."""
    found = _followed(computation, name)
    if found is None:
        return None
    if found.opcode == "constant":
        return int(found.literal) if re.fullmatch(r"-?\d+", found.literal) else None
    index = _element(computation, name)
    if index is None or context is None or not _kept(context.body, index):
        return None
    return _initial(index, context)


def _initial(index: int, context: Context) -> int | None:
    """Return the integer at `index` of a loop's state before the loop, or None."""
    given = _followed(context.computation, context.loop.operands[0])
    if given is None or given.opcode != "tuple" or index >= len(given.operands):
        return None
    return constant(context.computation, given.operands[index], context.outer)


def _kept(body: Computation, index: int) -> bool:
    """Return whether the body leaves element `index` of the state as it is."""
    root = body.root
    return root.opcode == "tuple" and index < len(root.operands) and _element(body, root.operands[index]) == index


def _step(body: Computation, index: int, context: Context) -> int | None:
    """Return by how much the body changes element `index` of the state."""
    if body.root.opcode != "tuple" or index >= len(body.root.operands):
        return None
    found = _followed(body, body.root.operands[index])
    if found is None or found.opcode not in ("add", "subtract") or len(found.operands) != 2:
        return None
    sides = list(found.operands)
    if found.opcode == "add" and _element(body, sides[0]) != index:
        sides.reverse()
    step = constant(body, sides[1], context)
    if step is None or _element(body, sides[0]) != index:
        return None
    return step if found.opcode == "add" else -step
