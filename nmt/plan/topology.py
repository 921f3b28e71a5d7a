"""Topologies: the devices that a step is compiled for, such as `v3:32x32`, `v5e:16x16*4` (four slices) or `cpu:8`.

They need not exist here. TPUs are described by libtpu, the compiler that `jax[tpu]` brings; CPUs are simulated by JAX.
Environment variables must be set before JAX is imported: `prepare_environment`.
"""

import contextlib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nmt.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import jax

# libtpu asks the metadata server of a Google machine what it runs on, and lets one process at a time use it, since it
# expects a TPU. Nothing here runs on one, so JAX itself stays on the CPU, whatever else the machine has.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Programs for devices that are not here cannot be read back from JAX's cache: it would only warn.
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
_DEFAULTS = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # any valid name: the topology decides
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
_COUNT_FLAG = re.compile(r"--xla_force_host_platform_device_count=\d+")


@dataclass(frozen=True)
class Kind:
    """A kind of TPU, described as libtpu names it."""

    largest: tuple[int, ...]  # chips of the largest slice there is, in each dimension
    devices_per_chip: int  # as JAX counts them
    options: tuple[tuple[str, Any], ...] = ()  # of the description

    @property
    def form(self) -> str:
        """The largest slice, written as in a topology."""
        return "x".join(map(str, self.largest))


_MEGACORE = (("chip_config_name", "megacore"),)  # one device a chip, as these chips are used

TPUS = {
    "v3": Kind((32, 32), 2),
    "v4": Kind((16, 16, 16), 1, _MEGACORE),
    "v5p": Kind((16, 20, 28), 1, _MEGACORE),
    "v5e": Kind((16, 16), 1),
    "v6e": Kind((16, 16), 1),
    "tpu7x": Kind((16, 24, 24), 2),
}
FORMS = ", ".join([*(f"{name}:{'x'.join('XYZ'[: len(kind.largest)])}" for name, kind in TPUS.items()), "cpu:N"])


@dataclass(frozen=True)
class Topology:
    """The devices of one or more slices."""

    kind: str  # a key of `TPUS`, or cpu
    shape: tuple[int, ...]  # chips of a slice in each dimension; of cpu the number of devices
    slices: int = 1

    def __str__(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}" + (f"*{self.slices}" if self.slices > 1 else "")

    @property
    def devices_per_chip(self) -> int:
        """Devices of a chip, as JAX counts them."""
        return TPUS[self.kind].devices_per_chip if self.kind in TPUS else 1

    @property
    def devices(self) -> int:
        """Devices in all slices, as JAX counts them."""
        return math.prod(self.shape) * self.slices * self.devices_per_chip


def parse_topology(text: str) -> Topology:
    """Read `KIND:XxY` or `KIND:XxYxZ`, chips of a slice in each dimension, with `*N` for N slices; or `cpu:N`.

    Raises:
      UserError: the text is no topology, or there is no such slice.
    """
    found = re.fullmatch(r"([a-z0-9]+):(\d{1,6}(?:x\d{1,6})*)(?:\*(\d{1,4}))?", text.strip().lower())
    if found is None:
        raise UserError(f"topology={text} is none: write one of {FORMS}, and *N for N slices, as v5e:16x16*4")
    name, shape, slices = found[1], tuple(map(int, found[2].split("x"))), int(found[3] or 1)
    if name != "cpu" and name not in TPUS:
        hint = did_you_mean(name, [*TPUS, "cpu"])
        raise UserError(f"topology={text}: unknown kind {name}{hint}; write one of {FORMS}")
    if slices < 1 or 0 in shape:
        raise UserError(f"topology={text} has no devices")
    if name == "cpu":
        if len(shape) > 1 or slices > 1:
            raise UserError(f"topology={text}: of CPUs there is only a number, as cpu:8")
        return Topology(name, shape)
    _check(text, shape, TPUS[name])
    return Topology(name, shape, slices)


def _check(text: str, shape: Sequence[int], kind: Kind) -> None:
    if len(shape) != len(kind.largest):
        raise UserError(
            f"topology={text} has {len(shape)} dimension(s) and this kind {len(kind.largest)}: up to {kind.form}"
        )
    if any(size % 2 for size in shape[:2]):
        raise UserError(f"topology={text}: the first two are to be even, as a host has 2x2 chips; up to {kind.form}")
    if any(size > most for size, most in zip(sorted(shape), sorted(kind.largest), strict=True)):
        raise UserError(f"topology={text} is larger than the largest slice, {kind.form}: use several slices, as *2")


def prepare_environment(topology: Topology) -> None:
    """Set up the process for a topology; call it before JAX is imported.

    Raises:
      UserError: the compiler for TPUs is not installed.
    """
    if topology.kind != "cpu" and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"topology={topology} needs the compiler for TPUs, which is not installed: pip install -e '.[tpu]' "
            "(topology=cpu:8 works without)"
        )
    os.environ |= _ENVIRONMENT
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # It would contradict the number of CPU devices that `describe_devices` asks for.
    os.environ["XLA_FLAGS"] = _COUNT_FLAG.sub("", os.environ.get("XLA_FLAGS", "")).strip()


def describe_devices(topology: Topology) -> "list[jax.Device]":
    """Return the devices of a topology, to be compiled for and not to be run on.

    Raises:
      UserError: there are fewer CPU devices in this process than wanted, or the compiler knows no such topology.
    """
    import jax
    from jax.experimental import topologies

    if topology.kind == "cpu":
        return _cpus(topology)
    options: dict[str, Any] = dict(TPUS[topology.kind].options)
    if topology.kind in ("v4", "v5p"):  # only there libtpu has to be told which dimensions close to rings
        options["wrap"] = (all(size % 4 == 0 for size in topology.shape),) * 3
    name = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=name, num_slices=topology.slices, **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"topology={topology}: {str(error).splitlines()[0]}") from None
    return list(description.devices)


def _cpus(topology: Topology) -> "list[jax.Device]":
    import jax

    wanted = topology.devices
    with contextlib.suppress(RuntimeError):  # JAX may run already, with the devices that it has
        jax.config.update("jax_num_cpu_devices", wanted)
    devices = jax.devices("cpu")
    if len(devices) < wanted:
        raise UserError(f"topology={topology}: this process has {len(devices)} CPU device(s)")
    return devices[:wanted]
