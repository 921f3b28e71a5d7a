"""FLOPs of the two instructions that multiply matrices: `dot`, and `convolution`, which XLA for TPUs makes of dots."""

import math
import re
from functools import lru_cache

import numpy as np

from nmt.plan.hlo_text import Array, Instruction


def dot_flops(result: Array, left: Array, instruction: Instruction) -> float:
    """Return 2 x elements of the result x products summed for each."""
    summed = math.prod(left.dims[i] for i in instruction.integers("lhs_contracting_dims"))
    return 2.0 * result.elements * summed


def convolution_flops(result: Array, left: Array, right: Array, instruction: Instruction) -> float:
    """Return 2 x the products of a convolution that are not with padding or with the holes of a dilation.

    XLA for TPUs writes the batch of a dot as a spatial dimension, for example with an input dilated so far that every
    output sees one of it; to count the window in full would be wrong by the size of the batch. This is the count of
    `HloCostAnalysis::HandleConvolution` of XLA.
    """
    labels = instruction.attribute("dim_labels") or ""
    lhs, rhs, out = re.split(r"_|->", labels)
    window = _window(instruction.braced("window") or "", sum(c.isdigit() for c in rhs))
    seen = 1
    for i, (stride, low, left_dilation, right_dilation) in enumerate(window):
        digit = str(i)
        sizes = (left.dims[lhs.index(digit)], right.dims[rhs.index(digit)], result.dims[out.index(digit)])
        seen *= _seen(*sizes, stride, low, left_dilation, right_dilation)
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    batch = left.dims[lhs.index("b")] // batch_groups
    # The kernel's input features are already those of one feature group.
    return 2.0 * batch * right.dims[rhs.index("i")] * right.dims[rhs.index("o")] * seen


def _window(text: str, dimensions: int) -> list[tuple[int, int, int, int]]:
    """Return stride, low padding, dilation of the input and of the kernel, for each spatial dimension."""
    keys = dict(part.split("=") for part in text.split())

    def numbers(key: str) -> list[int]:
        values = keys[key].split("x") if key in keys else ["1"] * dimensions
        return [int(value) for value in values]

    lows = [int(pad.split("_")[0]) for pad in keys["pad"].split("x")] if "pad" in keys else [0] * dimensions
    return list(zip(numbers("stride"), lows, numbers("lhs_dilate"), numbers("rhs_dilate"), strict=True))


@lru_cache(maxsize=4096)
def _seen(size: int, kernel: int, out: int, stride: int, low: int, dilation: int, kernel_dilation: int) -> int:
    """Count the pairs of an output and a kernel position that meet an element of the input along one dimension."""
    start = np.arange(out) * stride - low
    total = 0
    for place in range(kernel):
        at = start + place * kernel_dilation
        total += int(((at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)).sum())
    return total
