"""FLOPs, memory traffic and collectives of a compiled program, with loops multiplied in.

XLA's own `cost_analysis()` counts the body of a loop once, so a scan over 4 layers costs as much there as one over 40.
Here every computation counts as often as it runs.
"""

import re
from dataclasses import dataclass

from nmt.plan.hlo_bytes import Traffic, results
from nmt.plan.hlo_flops import convolution_flops, dot_flops
from nmt.plan.hlo_groups import group_size
from nmt.plan.hlo_loops import Context, trip_count
from nmt.plan.hlo_text import Array, Computation, Instruction, Module, branches, calls, parse_module

KINDS = ("all-to-all", "ragged-all-to-all", "all-reduce", "all-gather", "reduce-scatter", "collective-permute")
PHASES = ("forward", "recomputed", "backward", "other")
# Custom calls that multiply matrices without showing it in the text: kernels and library calls.
_OPAQUE = re.compile("(?i)tpu_custom_call|matmul|gemm|convolution|ragged.?dot|cublas|cudnn|onednn|mosaic|triton")


@dataclass(frozen=True)
class Collective:
    """One instruction by which devices exchange data."""

    kind: str  # one of KINDS, or send: another transfer to another slice
    executions: float  # in one execution of the program: trip counts multiplied
    payload_bytes: int  # of one execution on one device: operands or results, whichever is more
    group_size: int  # devices that exchange with each other
    op_name: str  # JAX's name of the operation, or ''
    source: str  # file:line of the Python, or ''
    trip_counts: tuple[int | None, ...]  # of the loops that it is in, outermost first; None: not known, counted once
    shapes: tuple[Array, ...]  # of its result
    across_slices: bool = False  # over the data centre's network (megascale), not between neighbouring chips

    @property
    def bytes(self) -> float:
        """Payload bytes of all executions on one device."""
        return self.executions * self.payload_bytes

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device has to send in all executions: (n-1)/n of the payload, twice that for an all-reduce."""
        if self.kind in ("collective-permute", "send"):
            return self.bytes
        share = (self.group_size - 1) / self.group_size
        return self.bytes * share * (2.0 if self.kind == "all-reduce" else 1.0)

    @property
    def phase(self) -> str:
        """The phase of the step, one of `PHASES`, by JAX's name of the operation.

        JAX calls a forward pass jvp(...) and its derivative transpose(jvp(...)).
        """
        if "rematted_computation" in self.op_name:
            return "recomputed"
        if "transpose(" in self.op_name:
            return "backward"
        return "forward" if "jvp(" in self.op_name else "other"


@dataclass(frozen=True)
class Program:
    """The work of one device in one execution of a program."""

    flops: float  # of products of matrices and convolutions; elementwise operations and reductions are left out
    bytes_accessed: float  # of the device's main memory, see `nmt.plan.hlo_bytes`
    collectives: tuple[Collective, ...]
    devices: int  # that run the program together, within one slice
    notes: tuple[str, ...] = ()  # assumptions, and operations that could not be counted

    def totals(self) -> dict[str, tuple[float, float]]:
        """Return executions and payload bytes on one device of each kind of collective."""
        found: dict[str, tuple[float, float]] = {}
        for one in self.collectives:
            key = f"{one.kind} across slices" if one.across_slices else one.kind
            count, size = found.get(key, (0.0, 0.0))
            found[key] = (count + one.executions, size + one.bytes)
        return dict(sorted(found.items()))

    def per_layer(self, layers: int, kind: str = "all-to-all") -> dict[str, float]:
        """Return executions of a kind of collective for each of so many layers, by phase (see `PHASES`).

        Raises:
          ValueError: there are no layers.
        """
        if layers < 1:
            raise ValueError(f"{layers} layers")
        counts = dict.fromkeys(PHASES, 0.0)
        for one in self.collectives:
            if one.kind == kind:
                counts[one.phase] += one.executions
        return {phase: count / layers for phase, count in counts.items()}


def analyse(text: str) -> Program:
    """Read the text of a compiled program (`compiled.as_text()`).

    Of the branches of a conditional the one with most FLOPs counts, as if it always ran. A loop whose trip count is not
    known counts once. Both are noted.

    Raises:
      ValueError: the text is not that of an HLO module.
    """
    module = parse_module(text)
    walk = _Walk(module)
    flops, size, collectives = walk.cost(module.computations[module.entry], 1.0, (), None)
    return Program(flops, size, tuple(collectives), module.devices, tuple(walk.notes))


def analyse_loop(text: str, scope: str) -> tuple[Program, Program]:
    """Read a program and count one of its loops apart, such as one that runs until its work is done.

    Args:
      text: the text of a compiled program.
      scope: the `jax.named_scope` that the loop is in, by which it is recognised.

    Returns:
      The program without that loop, and one execution of the loop's body.

    Raises:
      ValueError: the text is not that of an HLO module, or no loop is of that scope.
    """
    module = parse_module(text)
    walk = _Walk(module, scope)
    flops, size, collectives = walk.cost(module.computations[module.entry], 1.0, (), None)
    if walk.body is None:
        raise ValueError(f"no loop of scope {scope}")
    notes = tuple(walk.notes)
    rest = Program(flops, size, tuple(collectives), module.devices, notes)
    return rest, Program(walk.body[0], walk.body[1], tuple(walk.body[2]), module.devices, notes)


Cost = tuple[float, float, list[Collective]]
Trips = tuple[int | None, ...]


class _Walk:
    """Goes through a module as an execution would; the cost of a loop of scope `apart` is kept in `body` alone."""

    def __init__(self, module: Module, apart: str | None = None):
        self.module, self.traffic = module, Traffic(module)
        self.notes: dict[str, None] = {}  # in order, each once
        self.fused: dict[str, tuple[float, list[tuple[Instruction, Computation]]]] = {}
        self.apart = apart
        self.body: Cost | None = None

    def cost(self, computation: Computation, times: float, trips: Trips, context: Context | None) -> Cost:
        """Return FLOPs, bytes and collectives of so many executions of a computation."""
        flops, size = 0.0, 0.0
        found: list[Collective] = []
        pieces: set[str] = set()  # of collectives that are spread over several fusions
        for instruction in computation.instructions.values():
            size += times * self.traffic.count_bytes(instruction, computation)
            if instruction.opcode == "while":
                cost = self._loop(instruction, computation, times, trips, context)
            elif instruction.opcode == "conditional":
                cost = self._branch(instruction, times, trips)
            elif instruction.opcode in ("call", "async-start", "call-start"):
                cost = _sum([self.cost(self.module.computations[n], times, trips, None) for n in calls(instruction)])
            elif instruction.opcode == "fusion":
                inside, exchanged = self._inside(instruction)
                cost = (times * inside, 0.0, self._fresh(exchanged, pieces, times, trips))
            else:
                one = self._collective(instruction, computation, times, trips)
                cost = (times * self._flops(instruction, computation), 0.0, [one] if one else [])
            flops, size, found = flops + cost[0], size + cost[1], found + cost[2]
        return flops, size, found

    def _loop(
        self, loop: Instruction, computation: Computation, times: float, trips: Trips, outer: Context | None
    ) -> Cost:
        body = self.module.computations[loop.attribute("body") or ""]
        if self.apart is not None and loop.op_name.endswith(f"/{self.apart}/while"):
            self.body = self.cost(body, 1.0, (), Context(loop, computation, body, outer))
            return 0.0, 0.0, []
        count = trip_count(loop, computation, outer, self.module)
        if count is None:
            self.notes[f"loop {loop.op_name or loop.name}: trip count not known, counted once"] = None
        inner = Context(loop, computation, body, outer)
        return self.cost(body, times * (1 if count is None else count), (*trips, count), inner)

    def _branch(self, conditional: Instruction, times: float, trips: Trips) -> Cost:
        costs = [self.cost(self.module.computations[n], times, trips, None) for n in branches(conditional)]
        if len(costs) > 1:
            self.notes[f"conditional {conditional.op_name or conditional.name}: its largest branch is counted"] = None
        return max(costs, key=lambda cost: (cost[0], sum(one.bytes for one in cost[2]), cost[1]))

    def _inside(self, fusion: Instruction) -> tuple[float, list[tuple[Instruction, Computation]]]:
        """Return the FLOPs of a fusion, and the collectives that are fused into it."""
        flops = 0.0
        exchanged: list[tuple[Instruction, Computation]] = []
        for name in calls(fusion):
            if name not in self.fused:
                inside, total = self.module.computations[name], 0.0
                found: list[tuple[Instruction, Computation]] = []
                for instruction in inside.instructions.values():
                    if instruction.opcode == "fusion":
                        deeper, more = self._inside(instruction)
                        total, found = total + deeper, found + more
                    elif _kind(instruction):
                        found.append((instruction, inside))
                    else:
                        total += self._flops(instruction, inside)
                self.fused[name] = total, found
            flops, exchanged = flops + self.fused[name][0], exchanged + self.fused[name][1]
        return flops, exchanged

    def _fresh(
        self, exchanged: list[tuple[Instruction, Computation]], pieces: set[str], times: float, trips: Trips
    ) -> list[Collective]:
        """Return fused collectives; XLA for TPUs repeats one, with its channel, in each fusion that overlaps it."""
        found = []
        for instruction, inside in exchanged:
            key = f"{instruction.opcode} {instruction.attribute('channel_id')}"
            one = self._collective(instruction, inside, times, trips)
            if one and ("async_collective_fusion_config" not in instruction.attributes or key not in pieces):
                found.append(one)
            pieces.add(key)
        return found

    def _flops(self, instruction: Instruction, computation: Computation) -> float:
        if instruction.opcode == "dot":
            return dot_flops(instruction.shape[0], computation.look_up_shape(instruction.operands[0])[0], instruction)
        if instruction.opcode == "convolution":
            left, right = (computation.look_up_shape(operand)[0] for operand in instruction.operands[:2])
            return convolution_flops(instruction.shape[0], left, right, instruction)
        if instruction.opcode in ("custom-call", "ragged-dot"):
            target = (instruction.attribute("custom_call_target") or instruction.opcode).strip('"')
            if _OPAQUE.search(target):
                self.notes[f"{target} ({instruction.op_name or instruction.name}): its FLOPs are not counted"] = None
        return 0.0

    def _collective(
        self, instruction: Instruction, computation: Computation, times: float, trips: Trips
    ) -> Collective | None:
        kind = _kind(instruction)
        if not kind:
            return None
        given = [array for name in instruction.operands for array in computation.look_up_shape(name)]
        given = [array for array in given if array.dtype not in ("token", "opaque")]
        result = results(instruction)
        across, size = instruction.opcode == "send", group_size(instruction.attributes, self.module.devices)
        if across:
            kind, size, result = _megascale(instruction, size)
        elif kind == "collective-permute":
            size = 2
        payload = max(sum(array.bytes for array in given), sum(array.bytes for array in result))
        name, source = instruction.op_name, self.module.source(instruction)
        return Collective(kind, times, payload, size, name, source, trips, result, across)


def _kind(instruction: Instruction) -> str:
    """Return the kind of a collective, '' for any other instruction; the end of an asynchronous pair is none."""
    opcode = instruction.opcode.removesuffix("-start")
    if opcode == "send":  # its recv is the other half of the same exchange
        return "send"
    return opcode if opcode in KINDS else ""


def _megascale(send: Instruction, size: int) -> tuple[str, int, tuple[Array, ...]]:
    """Return kind, group size and arrays of an exchange between slices, which XLA writes as a send to the host."""
    name = re.search(r'_xla_host_transfer_rendezvous="([a-z\-]+)', send.attributes)
    kind = name[1] if name and name[1] in KINDS else "send"
    group = re.search(r"_xla_megascale_target=\{\{([\d,]*)\}", send.attributes)
    members = [n for n in group[1].split(",") if n] if group else []
    return kind, len(members) or size, send.shape[:1]


def _sum(costs: list[Cost]) -> Cost:
    return (
        sum(cost[0] for cost in costs),
        sum(cost[1] for cost in costs),
        [one for cost in costs for one in cost[2]],
    )
