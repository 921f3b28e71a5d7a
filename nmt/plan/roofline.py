"""Time of a step if every unit ran at its published speed: a bound, not a forecast.

Three times are worked out: of arithmetic (FLOPs / peak), of memory (bytes / bandwidth of HBM), of the interconnect. The
step takes at least the longest of them, if all overlap, and about their sum if nothing does (Williams, Waterman and
Patterson 2009, doi:10.1145/1498765.1498785, for the first two).

Interconnect, with V bytes that a chip's devices hold, W bytes/s of a link one way, c chips in a group:

* all-to-all: on a torus whose longest dimension is a, half of V crosses the middle of that dimension, over 2 c/a links:
  (c/2 V/2) / (2 c/a W) = a V / (8 W), and twice that on a mesh that does not close to rings. It is the bisection bound
  of Dally and Towles, Principles and Practices of Interconnection Networks, section 3.3, and grows with the square root
  of the number of chips of a 2-D torus, as GShard measured (arXiv:2006.16668, table 4).
* all-gather and reduce-scatter: V (n-1)/n over both links of every dimension of the group, 2 d W for d dimensions, half
  of that without rings; all-reduce is one after the other (Patarasu and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002).
* collective-permute: V over one link.
* across s slices: (s-1)/s of V leaves a slice, twice that for an all-reduce, over the data centre's network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nmt.plan.chips import Chip
from nmt.plan.hlo import Collective, Program

_DAY = 86400.0


@dataclass(frozen=True)
class Roofline:
    """Bounds on the time of a step, in seconds, with throughput and utilisation."""

    compute: float
    memory: float
    interconnect: dict[str, float]  # by kind of collective, "... across slices" where it leaves one
    peak: float  # FLOP/s of all devices
    model_flops: float  # of a step on all devices, without rematerialisation
    tokens: float  # of a step
    assumptions: tuple[str, ...]

    @property
    def communication(self) -> float:
        """Seconds of all collectives, one after the other."""
        return sum(self.interconnect.values())

    @property
    def shortest(self) -> float:
        """Seconds of a step if arithmetic, memory and interconnect overlap in full."""
        return max(self.compute, self.memory, self.communication)

    @property
    def longest(self) -> float:
        """Seconds of a step if none of them overlap; a real one also has latencies, and no unit reaches its peak."""
        return self.compute + self.memory + self.communication

    @property
    def bottleneck(self) -> str:
        """The slowest of the three: compute, memory or interconnect."""
        times = {"compute": self.compute, "memory": self.memory, "interconnect": self.communication}
        return max(times, key=lambda name: times[name])

    def mfu(self, seconds: float | None = None) -> float:
        """Return model FLOPs / (seconds x peak), for a step of `longest` seconds or of those given."""
        return self.model_flops / ((seconds or self.longest) * self.peak)

    def tokens_per_second(self, seconds: float | None = None) -> float:
        """Return tokens a second, for a step of `longest` seconds or of those given."""
        return self.tokens / (seconds or self.longest)

    def days(self, tokens: float = 1e12, seconds: float | None = None) -> float:
        """Return the days that so many tokens take, for a step of `longest` seconds or of those given."""
        return tokens / self.tokens_per_second(seconds) / _DAY


def estimate(
    program: Program,
    chip: Chip,
    devices: int,
    torus: Sequence[int],
    tokens: float,
    model_flops: float,
    slices: int = 1,
) -> Roofline:
    """Estimate the time of one execution of a program.

    Args:
      program: the work of one device.
      chip: its published figures.
      devices: their number, as JAX counts them, in all slices.
      torus: chips in each dimension of a slice, as in `v3:32x32`.
      tokens: of a step.
      model_flops: of a step on all devices, for MFU.
      slices: slices that the devices are in.

    Raises:
      UserError: a figure of the chip that is needed is not published.
    """
    compute = program.flops / chip.known("peak_flops")
    memory = program.bytes_accessed / chip.known("hbm_bandwidth")
    times: dict[str, float] = {}
    for one in program.collectives:
        key = f"{one.kind} across slices" if one.across_slices else one.kind
        seconds = _dcn_seconds(one, chip, slices) if one.across_slices else collective_seconds(one, chip, torus)
        times[key] = times.get(key, 0.0) + seconds
    peak = devices * chip.known("peak_flops")
    return Roofline(compute, memory, dict(sorted(times.items())), peak, model_flops, tokens, assumptions(chip, torus))


def collective_seconds(one: Collective, chip: Chip, torus: Sequence[int]) -> float:
    """Return the time of all executions of a collective within a slice.

    Raises:
      UserError: the bandwidth of the chip's links is not published.
    """
    group, rings = group_shape(max(1, one.group_size // chip.devices_per_chip), chip, torus)
    if math.prod(group) == 1 or one.bytes == 0:
        return 0.0
    link = chip.known("link_bandwidth")
    held = one.bytes * chip.devices_per_chip
    if one.kind in ("all-to-all", "ragged-all-to-all"):
        return max(size * held / ((8.0 if ring else 4.0) * link) for size, ring in zip(group, rings, strict=True))
    if one.kind in ("collective-permute", "send"):
        return held / link
    ways = sum(2 if ring else 1 for ring in rings)
    return one.sent_bytes * chip.devices_per_chip / (ways * link)


def _dcn_seconds(one: Collective, chip: Chip, slices: int) -> float:
    share = 1.0 if one.kind == "send" else (slices - 1) / slices * (2.0 if one.kind == "all-reduce" else 1.0)
    return one.bytes * share / chip.known("dcn_bandwidth")


def group_shape(chips: int, chip: Chip, torus: Sequence[int]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return a group's chips in each torus dimension that it spans, and whether each of these closes to a ring.

    A group takes as few dimensions of the torus as it can, the longest first: a device mesh maps its axes to whole
    dimensions where that is possible.
    """
    left, sizes, rings = chips, [], []
    for size in sorted(torus, reverse=True):
        span = math.gcd(left, size)
        if span > 1:
            sizes.append(span)
            rings.append(span == size and size > 2 and size % chip.wraps_from == 0)
            left //= span
    if left > 1:  # it does not fit the dimensions: a line through the rest
        sizes, rings = [*sizes[:-1], (sizes[-1] if sizes else 1) * left], [*rings[:-1], False]
    return tuple(sizes) or (1,), tuple(rings) or (False,)


def assumptions(chip: Chip, torus: Sequence[int]) -> tuple[str, ...]:
    """Return the assumptions of an estimate, one a line."""

    def giga(value: float | None) -> str:
        return "unknown" if value is None else f"{value / 1e9:,.0f} GB/s"

    rings = [size for size in torus if size > 2 and size % chip.wraps_from == 0]
    peak = "unknown" if chip.peak_flops is None else f"{chip.peak_flops / 1e12:,.1f} TFLOP/s bfloat16"
    return (
        f"a device of {chip.kind}: {peak}, HBM {giga(chip.hbm_bandwidth)}; {chip.devices_per_chip} a chip",
        f"ICI {giga(chip.link_bandwidth)} a link one way, {2 * chip.torus_dimensions} links a chip; "
        f"{'x'.join(map(str, torus))} chips, {len(rings)} of {len(torus)} dimensions close to rings",
        "every unit at its published peak, products in bfloat16 (in float32 they take several passes), no latency",
        "all-to-all bound by the bisection of its group; all-reduce, all-gather, reduce-scatter around rings",
        "a group takes as few dimensions of the torus as it can; its devices share the links of their chip",
        "memory: every fusion reads its operands and writes its results once",
    )
