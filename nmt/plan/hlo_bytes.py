"""Estimated bytes that a program reads from and writes to the main memory of its device.

A fusion is one pass: it reads its operands and writes its result, and intermediate values stay on the chip. So an
instruction moves the bytes of its operands and its result, as far as these live in main memory. TPUs have memories on
the chip too; the layout of an array there names the memory (`S(1)`). Where an instruction reads only slices of an
operand, the slices count, and where it updates a result in place, the update counts: otherwise a scan over stacked
parameters would seem to read all of them in every layer.
"""

from nmt.plan.hlo_text import Array, Computation, Instruction, Module, calls

# These move nothing themselves: they name, join or wait for arrays, or call computations that are counted instead.
_NAMES = ("parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id")
_ORDER = ("after-all", "add-dependency", "optimization-barrier", "domain", "async-update")
_CALLS = ("while", "call", "conditional", "call-start", "async-start")
_FREE = frozenset((*_NAMES, *_ORDER, *_CALLS))
_VIEWS = ("bitcast", "reshape")
_SLICES = ("dynamic-slice", "slice", "gather")


class Traffic:
    """Counts the bytes of instructions of one module."""

    def __init__(self, module: Module):
        self.module = module

    def count_bytes(self, instruction: Instruction, computation: Computation) -> float:
        """Return the bytes that an instruction reads and writes when it runs once."""
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            return 0.0
        if instruction.attribute("custom_call_target") == '"AllocateBuffer"':
            return 0.0
        return self._read(instruction, computation) + self._written(instruction, computation)

    def _read(self, instruction: Instruction, computation: Computation) -> float:
        if instruction.opcode.removesuffix("-start") in _SLICES:
            sliced = sum(array.bytes for array in results(instruction))
            return float(sliced) if _touches_main(computation.look_up_shape(instruction.operands[0])) else 0.0
        if instruction.opcode == "dynamic-update-slice":
            return _main_bytes(computation.look_up_shape(instruction.operands[1]))
        inner = self._inside(instruction)
        total = 0.0
        for number, operand in enumerate(instruction.operands):
            full = _main_bytes(computation.look_up_shape(operand))
            parameter = inner.parameters.get(number) if inner and full else None
            total += full if inner is None or parameter is None else min(full, self._used(inner, parameter.name, full))
        return total

    def _used(self, inside: Computation, name: str, full: float) -> float:
        """Return the bytes that a fused computation reads of an array of `full` bytes."""
        total = full if name == inside.root.name else 0.0
        for user in inside.users.get(name, []):
            first = bool(user.operands) and user.operands[0] == name
            if user.opcode in _SLICES and first:
                total += user.bytes
            elif user.opcode == "dynamic-update-slice" and first and name not in user.operands[1:]:
                continue
            elif user.opcode in _VIEWS or self._is_view(user):
                total += self._used(inside, user.name, full)
            elif user.opcode == "fusion" and (deeper := self._inside(user)) is not None:
                places = [n for n, operand in enumerate(user.operands) if operand == name]
                total += sum(self._used(deeper, deeper.parameters[n].name, full) for n in places)
            else:
                return full
            if total >= full:
                return full
        return total

    def _written(self, instruction: Instruction, computation: Computation) -> float:
        if instruction.opcode == "dynamic-update-slice":
            return (
                _main_bytes(computation.look_up_shape(instruction.operands[1]))
                if _touches_main(instruction.shape)
                else 0.0
            )
        if instruction.opcode.endswith("-start"):
            return _main_bytes(results(instruction))
        inner = self._inside(instruction)
        if inner is None:
            return _main_bytes(instruction.shape)
        leaves = inner.root.operands if inner.root.opcode == "tuple" else (inner.root.name,)
        if len(leaves) != len(instruction.shape):
            return _main_bytes(instruction.shape)
        return sum(
            min(array.bytes, self._updated(inner, leaf))
            for array, leaf in zip(instruction.shape, leaves, strict=True)
            if array.space == 0
        )

    def _updated(self, inside: Computation, name: str) -> float:
        """Return the bytes that a fused computation writes of an array."""
        found = inside.instructions[name]
        while found.opcode in _VIEWS:
            found = inside.instructions[found.operands[0]]
        if found.opcode == "dynamic-update-slice":
            return sum(array.bytes for array in inside.look_up_shape(found.operands[1]))
        deeper = self._inside(found)
        if deeper is not None and deeper.root.opcode != "tuple":
            return self._updated(deeper, deeper.root.name)
        return found.bytes

    def _is_view(self, fusion: Instruction) -> bool:
        """Return whether a fusion only reinterprets its operand."""
        inner = self._inside(fusion)
        return inner is not None and all(i.opcode in (*_VIEWS, "parameter") for i in inner.instructions.values())

    def _inside(self, instruction: Instruction) -> Computation | None:
        if instruction.opcode != "fusion":
            return None
        return next((self.module.computations[name] for name in calls(instruction)), None)


def results(instruction: Instruction) -> tuple[Array, ...]:
    """Return the result arrays; the shape of the start of an asynchronous pair lists operands and counters too."""
    if not instruction.opcode.endswith("-start"):
        return instruction.shape
    if instruction.opcode == "copy-start":
        return instruction.shape[:1]
    operands = len(instruction.operands)
    both = len(instruction.shape) > operands
    return instruction.shape[operands : 2 * operands] if both else instruction.shape


def _touches_main(shape: tuple[Array, ...]) -> bool:
    return any(array.space == 0 for array in shape)


def _main_bytes(shape: tuple[Array, ...]) -> float:
    return float(sum(array.bytes for array in shape if array.space == 0))
