"""Published figures of chips: memory, arithmetic and bandwidth of each device, as JAX counts devices.

On TPU v2, v3 and 7x a device is one of a chip's two cores, so figures of a chip are halved; v4 and v5p show their two
cores as one device ("megacore"). ICI figures stay those of the chip: both cores share its links.

Sources, by the letter in `Chip.sources`:

* D: Cloud TPU documentation, docs.cloud.google.com/tpu/docs/v3, /v4, /v5e, /v5p, /v6e, /tpu7x, "System architecture".
* S: "How to Scale Your Model", jax-ml.github.io/scaling-book/tpus: the table "ICI BW/link (one-way)", and the data
  centre's network with "typically around 2.5e10 bytes / second per host".
* B: a link's share of the bisection in D, which counts one way: v3 6.4 TB/s / (2 x 32 links) = 1.0e11, v5e 1.6 TB/s /
  (2 x 16) = 5e10, v4 24 TB/s / (2 x 256) = 4.7e10: the figures of S again.
* A: Google's announcement of the second TPU, 180 TFLOP/s for a board of four chips.
* X: memory that a program may use, as libtpu 0.0.42.1 says when one does not fit: "exceeds available HBM (15.48G)",
  compiled ahead of time for one device of each kind; G is GiB. The rest of the memory XLA keeps for itself.

A figure that none of these sources gives is None, and nothing is estimated from it.
"""

from dataclasses import dataclass

from nmt.errors import UserError

_GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A kind of accelerator; every figure is for one device as JAX counts them, unless it says chip."""

    kind: str
    devices_per_chip: int
    hbm_bytes: float | None  # usable, as XLA reports it where that is known, else the whole
    peak_flops: float | None  # bfloat16 FLOP/s
    hbm_bandwidth: float | None  # bytes/s
    link_bandwidth: float | None  # bytes/s of one ICI link of a chip, one way
    torus_dimensions: int  # 2 or 3: a chip has two links in each; 0: there are no links
    dcn_bandwidth: float | None  # bytes/s of the data centre's network for one device, one way
    wraps_from: int  # chips in a dimension from which (in multiples of which) it closes to a ring
    sources: str

    def known(self, figure: str) -> float:
        """Return the field named `figure`.

        Raises:
          UserError: its value is not published.
        """
        value = getattr(self, figure)
        if value is None:
            raise UserError(f"{figure} of {self.kind} is not published: no estimate without it")
        return float(value)


def _gbit(value: float) -> float:
    return value * 1e9 / 8


CHIPS = {
    chip.kind: chip
    for chip in (
        # kind, devices a chip, HBM bytes, FLOP/s, HBM B/s, B/s of a link, dimensions, DCN B/s, wraps, sources
        Chip("v2", 2, 7.48 * _GIB, 180e12 / 4 / 2, None, None, 2, None, 16, "X memory, A peak"),
        Chip("v3", 2, 15.48 * _GIB, 123e12 / 2, 900e9 / 2, 1e11, 2, None, 32, "X memory, D, S and B links"),
        Chip("v4", 1, 30.75 * _GIB, 275e12, 1200e9, 4.5e10, 3, 2.5e10 / 4, 4, "X memory, D, S links; DCN S / 4 chips"),
        Chip("v5e", 1, 15.75 * _GIB, 197e12, 819e9, 5e10, 2, _gbit(6400) / 256, 16, "X memory, D, S and B links"),
        Chip("v5p", 1, 95.74 * _GIB, 459e12, 2765e9, 1e11, 3, _gbit(50), 4, "X memory, D, S links"),
        Chip("v6e", 1, 31.25 * _GIB, 918e12, 1638e9, 1e11, 2, _gbit(100), 16, "X memory, D, S links"),
        Chip("tpu7x", 2, 94.75 * _GIB, 2307e12 / 2, 7380e9 / 2, 1e11, 3, _gbit(100) / 2, 4, "X memory, D (1200 GB/s)"),
        Chip("cpu", 1, None, None, None, None, 0, None, 1, "no figures: no estimate is made for CPUs"),
    )
}

_ALIASES = {
    "tpu v2": "v2",
    "tpu v3": "v3",
    "tpu v4": "v4",
    "v5": "v5p",
    "tpu v5": "v5p",
    "tpu v5p": "v5p",
    "tpu v5 lite": "v5e",
    "tpu v5e": "v5e",
    "tpu v6 lite": "v6e",
    "tpu v6e": "v6e",
    "v7x": "tpu7x",
    "ironwood": "tpu7x",
}


def find_chip(kind: str) -> Chip:
    """Return a chip by its name in a topology (`v3`) or by JAX's `device_kind` (`TPU v3`).

    Raises:
      UserError: no such chip is known.
    """
    name = kind.strip().lower()
    name = _ALIASES.get(name, name)
    if name not in CHIPS:
        raise UserError(f"unknown chip {kind!r}: known are {', '.join(CHIPS)}")
    return CHIPS[name]
