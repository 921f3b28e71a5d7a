"""Plans of decoding: the sources of a batch are encoded once, then one step of the search runs for each token."""

from dataclasses import dataclass
from typing import Any

from nmt.config import Recipe
from nmt.decode.shapes import SearchShapes
from nmt.models.moe.dispatch import round_slots
from nmt.plan.compile import MemoryUse
from nmt.plan.hlo import Program
from nmt.plan.memory import bytes_on_device
from nmt.plan.roofline import Roofline
from nmt.sharding import Layout, shard_count

WEIGHTS, CELLS, SOURCE_CELLS = "weights", "cache of targets", "cache of sources"
SCORING = "weights for scoring alone"


@dataclass(frozen=True)
class Decoding:
    """A search over a batch of the longest sources; a `Plan`'s program and its time are those of one step of it.

    In a step every row gets one token, for which all its hypotheses are extended.
    """

    rows: int
    beam: int
    source: int  # tokens of each row
    room: int  # tokens that a translation may have before a second program is needed
    encoding: Program | None = None  # of the sources, once; None: it does not fit
    encoding_time: Roofline | None = None  # None: figures of the chip are not published

    def seconds(self, step: Roofline) -> tuple[float, float]:
        """Return the longest and the shortest estimate for a batch in seconds; translations are as long as sources."""
        first = self.encoding_time
        before = (first.longest, first.shortest) if first else (0.0, 0.0)
        return before[0] + self.source * step.longest, before[1] + self.source * step.shortest


def memory_of_search(
    recipe: Recipe, shapes: SearchShapes, layout: Layout, program: MemoryUse | None = None
) -> dict[str, int]:
    """Return bytes of one device by class: weights and caches are exact, dispatch buffers and activations estimated.

    Buffers are those of one round of one sparse layer in the encoder, where rows are longest.

    Args:
      recipe: the recipe.
      shapes: the abstract arrays of the search.
      layout: the devices.
      program: XLA's memory analysis; None: the program does not fit, and only the exact classes are known.
    """
    weights = bytes_on_device(shapes.model)
    exact = {WEIGHTS: weights, CELLS: shapes.cells, SOURCE_CELLS: shapes.source_cells}
    if program is None:
        return exact
    # Layers hold the weights of attention a second time, in the layout that scoring a given translation uses.
    read = min(weights, program.arguments)
    left = max(0, program.temporaries - shapes.cells - shapes.source_cells)
    buffers = min(left, _round_buffers(recipe, shapes, layout))
    rest = {"dispatch buffers": buffers, "activations": left - buffers}
    return exact | {WEIGHTS: read, SCORING: weights - read} | rest


def _round_buffers(recipe: Recipe, shapes: SearchShapes, layout: Layout) -> int:
    model, moe = recipe.model, recipe.model.moe
    with layout.use():
        groups, split = shard_count("group"), shard_count("expert") > 1
    if moe is None or not split:
        return 0
    tokens = shapes.rows * shapes.source
    slots = round_slots(tokens // groups, moe.experts, moe.top_k) * moe.experts
    return slots * (2 * model.width + model.hidden) * 4  # float32, for a device's own group


def decoding_as_json(decoding: Decoding, step: Roofline | None, devices: int) -> dict[str, Any]:
    """Return the JSON object of a decoding plan; bytes and FLOPs are those of one device."""
    result: dict[str, Any] = {
        "rows": decoding.rows,
        "beam": decoding.beam,
        "source_tokens": decoding.source,
        "room": decoding.room,
    }
    if decoding.encoding is not None:
        encoding = decoding.encoding
        result["encoding"] = {
            "flops_per_device": encoding.flops,
            "flops_per_source_token": encoding.flops * devices / (decoding.rows * decoding.source),
            "hbm_bytes_accessed": encoding.bytes_accessed,
            "collectives": {
                kind: {"executions": count, "bytes": size} for kind, (count, size) in encoding.totals().items()
            },
        }
    if step is not None:
        slow, fast = decoding.seconds(step)
        result["tokens_per_second"] = [decoding.rows / step.longest, decoding.rows / step.shortest]
        result["sentences_per_second"] = [decoding.rows / slow, decoding.rows / fast]
    return result
