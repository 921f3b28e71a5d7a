"""The text of an optimised HLO module, as `compiled.as_text()` prints it, read into computations of instructions.

Only shapes, opcodes, operands and called computations are parsed. The rest of a line is kept as text, and searched when
an attribute is asked for. A module of a large model is tens of megabytes, most of it
configuration of a backend, so lines are taken one by one, and no expression walks over all of one.

Grammar: https://openxla.org/xla/operation_semantics, and `HloInstruction::ToString` of XLA.
"""

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128, "bf16": 16}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([^\[\]]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_AFTER_TUPLE = re.compile(r"\) ([a-z][a-z0-9\-]*)\(")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")


@dataclass(frozen=True, slots=True)
class Array:
    """The shape of an array: its type as XLA spells it, its dimensions, and the memory that it lives in."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0  # 0 is the memory of the device (HBM), 5 that of the host, others are on the chip

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes without the padding of a tiled layout."""
        return -(-self.elements * bits(self.dtype) // 8)


def bits(dtype: str) -> int:
    """Return the bits of an element of a type such as bf16, s4, f8e4m3fn, pred."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)
    return int(digits[1]) if digits else 0


def parse_shape(text: str) -> tuple[Array, ...]:
    """Return the arrays of a shape: one, or the leaves of a tuple, in order.

    A dimension that is bounded but not fixed (`<=8`) counts as its bound.
    """
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout) if "S(" in layout else None
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size.strip("<= "))
        found.append(Array(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)


@dataclass(slots=True)
class Instruction:
    """One line: `name = shape opcode(operands), attributes`."""

    name: str
    opcode: str
    shape: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str  # text between the parentheses of a constant or a parameter
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Bytes of the result."""
        return sum(array.bytes for array in self.shape)

    def attribute(self, key: str) -> str | None:
        """Return the word after `key=`, or None; without the % of a name."""
        found = re.search(rf"[ ,]{key}=%?([^\s,]+)", self.attributes)
        return found[1] if found else None

    def braced(self, key: str) -> str | None:
        """Return the text between the braces of `key={...}`, or None."""
        at = self.attributes.find(f" {key}={{")
        if at < 0:
            return None
        start, depth = at + len(key) + 3, 1
        for position in range(start, len(self.attributes)):
            depth += {"{": 1, "}": -1}.get(self.attributes[position], 0)
            if depth == 0:
                return self.attributes[start:position]
        return None

    def integers(self, key: str) -> tuple[int, ...]:
        """Return the integers of `key={1,2}`; empty where there is no such key."""
        inner = self.braced(key)
        return tuple(int(number) for number in inner.split(",") if number) if inner else ()

    @property
    def op_name(self) -> str:
        """JAX's name of the operation that this was compiled from, or ''."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found[1] if found else ""


@dataclass
class Computation:
    """Instructions in the order of the text; every operand is defined before it is used."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @cached_property
    def root(self) -> Instruction:
        """The instruction that yields the computation's result."""
        every = list(self.instructions.values())
        return next((found for found in every if found.is_root), every[-1])

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Its parameters by number."""
        return {int(i.literal): i for i in self.instructions.values() if i.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction's result, by its name."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    def look_up_shape(self, name: str) -> tuple[Array, ...]:
        """Return the shape of an instruction by name; () if it is not in this computation."""
        found = self.instructions.get(name)
        return found.shape if found else ()


@dataclass
class Module:
    """A whole program."""

    header: str = ""
    computations: dict[str, Computation] = field(default_factory=dict)
    entry: str = ""
    tables: dict[str, dict[int, str]] = field(default_factory=dict)  # of the header: files, locations, stack frames

    def source(self, instruction: Instruction) -> str:
        """Return file:line of the Python that this was made from, or ''."""
        found = re.search(r'source_file="([^"]*)"(?: source_line=(\d+))?', instruction.attributes)
        if found:
            return f"{found[1]}:{found[2] or '?'}"
        frame = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        number, place = frame and frame[1], ""
        while number and number != "0":
            entry = self._row("StackFrames", number)
            location = self._row("FileLocations", _value(entry, "file_location_id"))
            name = self._row("FileNames", _value(location, "file_name_id")).strip('"')
            place = f"{name}:{_value(location, 'line')}" if name else ""
            parent = _value(entry, "parent_frame_id")
            # An annotation says nothing; who annotates does. The outermost frame is its own parent.
            number = parent if "nmt/sharding/" in name and parent != number else None
        return place

    def _row(self, table: str, number: str | None) -> str:
        return self.tables.get(table, {}).get(int(number), "") if number else ""

    @property
    def devices(self) -> int:
        """The number of devices that run this program together."""
        found = [int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", self.header)]
        return math.prod(found) if found else 1


def _value(row: str, key: str) -> str | None:
    found = re.search(rf"\b{key}=(\d+)", row)
    return found[1] if found else None


def parse_module(text: str) -> Module:
    """Read a module.

    Raises:
      ValueError: the text is not that of an HLO module.
    """
    lines = iter(io.StringIO(text))
    module = Module(header=next(lines, ""))
    if not module.header.startswith("HloModule"):
        raise ValueError(f"not the text of an HLO module; it begins {module.header[:40]!r}")
    table: dict[int, str] = {}
    current: Computation | None = None
    for line in lines:
        if line.startswith("  ") and current is not None:
            found = parse_instruction(line)
            if found is not None:
                current.instructions[found.name] = found
        elif head := _HEAD.match(line):
            current = module.computations[head[2]] = Computation(head[2])
            module.entry = head[2] if head[1] else module.entry
        elif line[0].isdigit():
            number, _, row = line.strip().partition(" ")
            table[int(number)] = row
        elif line.strip() in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = module.tables.setdefault(line.strip(), {})
    if not module.entry:
        raise ValueError("the text of this HLO module has no ENTRY")
    return module


def parse_instruction(line: str) -> Instruction | None:
    """Read one instruction; None for a line that is something else."""
    name, equals, rest = line.strip().partition(" = ")
    if not equals:
        return None
    is_root = name.startswith("ROOT ")
    name = name.removeprefix("ROOT ").lstrip("%")
    if rest.startswith("("):
        found = _AFTER_TUPLE.search(rest)
        if found is None:
            return None
        shape, opcode, at = rest[: found.start() + 1], found[1], found.end()
    else:
        shape, _, call = rest.partition(" ")
        opcode, parenthesis, _ = call.partition("(")
        if not parenthesis:
            return None
        at = len(shape) + 1 + len(opcode) + 1
    end = _closing(rest, at)
    inside = rest[at:end]
    operands = () if opcode in ("constant", "parameter") else tuple(_NAME.findall(inside))
    literal = inside if opcode in ("constant", "parameter") else ""
    return Instruction(name, opcode, parse_shape(shape), operands, literal, f" {rest[end + 1 :].lstrip(', ')}", is_root)


def _closing(text: str, start: int) -> int:
    """Return the index of the parenthesis that closes the one opened before `start`."""
    end = text.find(")", start)
    opened = text.find("(", start)
    if opened < 0 or end < opened:
        return end if end >= 0 else len(text)
    depth = 1
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


def calls(instruction: Instruction) -> Iterator[str]:
    """Yield the computations that an instruction runs once when it runs: not bodies of loops, branches, reductions."""
    for key in ("calls", "to_apply"):
        name = instruction.attribute(key)
        if name and (key == "calls" or instruction.opcode.startswith("call")):
            yield name


def branches(instruction: Instruction) -> tuple[str, ...]:
    """Return the computations of which a conditional runs one."""
    inner = instruction.braced("branch_computations")
    if inner:
        return tuple(name.strip().lstrip("%") for name in inner.split(","))
    pair = (instruction.attribute("true_computation"), instruction.attribute("false_computation"))
    return tuple(name for name in pair if name)
