"""Compiling the real train step, or the real decoding of a batch, ahead of time; nothing is allocated or run."""

import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from nmt.config import Recipe
from nmt.decode.shapes import SearchShapes, lower_search, search_shapes
from nmt.models.building import abstract_model
from nmt.sharding import Layout
from nmt.train.step import Trainer, make_trainer

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)"
# XLA words it in either of these ways; only the first counts the arguments of the program too.
_USED = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")
_TEMPORARIES = re.compile(rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)")


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on one device, as XLA lays them out."""

    arguments: int  # state and batch, there before the step
    outputs: int  # results that do not reuse the memory of an argument
    temporaries: int
    code: int
    peak: int  # most that is alive at once, arguments included


@dataclass(frozen=True)
class Compiled:
    """A program, compiled."""

    text: str  # of its HLO, as it runs on one device
    memory: MemoryUse
    lower_seconds: float  # tracing and lowering
    compile_seconds: float
    host_bytes: int  # peak of this process's memory so far


@dataclass(frozen=True)
class Overflow:
    """A program that does not fit the memory of a device."""

    needed: int  # bytes on one device
    available: int
    temporaries_only: bool  # whether `needed` leaves out the arguments
    compile_seconds: float


def make_plan_trainer(recipe: Recipe, layout: Layout) -> Trainer:
    """Return the step of a run on a mesh, with the abstract state and batch (shapes without values) that it takes.

    Raises:
      UserError: the mesh does not divide the model or the batch.
    """
    with layout.use() as mesh:
        return make_trainer(recipe, recipe.vocab.sizes, mesh)


def compile_step(trainer: Trainer, layout: Layout) -> Compiled | Overflow:
    """Compile the train step."""
    with layout.use():
        return compile_function(lambda: trainer.step.lower(trainer.state, trainer.batch), _platform(layout))


def decoding_shapes(recipe: Recipe, trainer: Trainer, layout: Layout) -> SearchShapes:
    """Return the abstract arrays of a beam search over a full batch of the longest sources."""
    with layout.use():
        graph, _ = abstract_model(recipe.model, recipe.vocab.sizes)
        weights = nnx.merge_state(trainer.state.parameters, trainer.state.buffers)
        return search_shapes(graph, weights, recipe.data.source_length, recipe.decode)


def compile_decoding(shapes: SearchShapes, layout: Layout) -> Compiled | Overflow:
    """Compile the beam search over these arrays."""
    with layout.use():
        return compile_function(lambda: lower_search(shapes), _platform(layout))


def compile_function(lower: Callable[[], Any], platform: str) -> Compiled | Overflow:
    """Compile the program that a function lowers; its mesh is to be set.

    Args:
      lower: returns the lowered program.
      platform: of the devices: `cpu` or `tpu`.
    """
    began = lowered_at = time.monotonic()
    try:
        lowered = lower()
        lowered_at = time.monotonic()
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (overflow := parse_overflow(str(error), time.monotonic() - lowered_at)) is None:
            raise
        return overflow
    done = time.monotonic()
    return Compiled(
        compiled.as_text(),
        read_memory(compiled.memory_analysis(), platform),
        lowered_at - began,
        done - lowered_at,
        host_peak(),
    )


def _platform(layout: Layout) -> str:
    return str(layout.mesh.devices.flat[0].platform)


def read_memory(analysis: Any, platform: str) -> MemoryUse:
    """Return the bytes of one device that XLA's memory analysis of a compiled program reports.

    On TPUs the peak is XLA's: the most that is alive at once. Temporaries are as reserved, which in small programs can
    be many times as much. On CPUs XLA's peak leaves temporaries out, so there it is the sum of all four.
    """
    arguments, temporaries = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    outputs = max(0, analysis.output_size_in_bytes - analysis.alias_size_in_bytes)
    code = analysis.generated_code_size_in_bytes
    together = arguments + outputs + temporaries + code
    peak = together if platform == "cpu" else analysis.peak_memory_in_bytes
    return MemoryUse(arguments, outputs, temporaries, code, peak)


def parse_overflow(message: str, seconds: float) -> Overflow | None:
    """Return the sizes in XLA's out-of-memory message, or None for any other error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    used = _USED.search(message)
    found = used or _TEMPORARIES.search(message)
    if found is None:
        return None
    needed, available = (int(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3))
    return Overflow(needed, available, used is None, seconds)


def host_peak() -> int:
    """Return the peak of this process's memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
