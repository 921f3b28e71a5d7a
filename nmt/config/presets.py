"""Presets of the mixture-of-experts layers: the conventions of four papers, as values of `model.moe`.

A preset stands for its values as if they were written where its name is: what is written beside it, or in a later
layer (recipe over model, argument over recipe), wins; what an earlier layer set gives way.
"""

from collections.abc import Mapping
from typing import Any

# Where a paper says nothing, the default of the schema holds. docs/moe.md has the sources, field by field.
PRESETS: dict[str, dict[str, Any]] = {
    "gshard": {
        "every": 2,
        "top_k": 2,
        "normalise": "before",
        "second_expert": "random",
        "second_threshold": 0.5,
        "capacity_factor": 2.0,
        "eval_capacity_factor": None,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "z_weight": 0.0,
        "jitter": 0.0,
        "router_init_scale": 1.0,
        "expert_dropout": 0.0,
        "output_masking": 0.0,
        "extra_dense": False,
    },
    "switch": {
        "every": 2,
        "top_k": 1,
        "normalise": "none",
        "second_expert": "all",
        "second_threshold": 0.5,
        "capacity_factor": 1.25,
        "eval_capacity_factor": 2.0,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "z_weight": 0.0,
        "jitter": 0.01,
        "router_init_scale": 1.0,
        "expert_dropout": 0.1,
        "output_masking": 0.0,
        "extra_dense": False,
    },
    "st_moe": {
        "every": 4,
        "top_k": 2,
        "normalise": "before",
        "second_expert": "random",
        "second_threshold": 0.2,
        "capacity_factor": 1.25,
        "eval_capacity_factor": 2.0,
        "batch_prioritised": True,
        "balance_weight": 0.01,
        "z_weight": 0.001,
        "jitter": 0.0,
        "router_init_scale": 1.0,
        "expert_dropout": 0.1,
        "output_masking": 0.0,
        "extra_dense": True,
    },
    "nllb": {
        "every": 4,
        "top_k": 2,
        "normalise": "after",
        "second_expert": "all",
        "second_threshold": 0.5,
        "capacity_factor": 2.0,
        "eval_capacity_factor": None,
        "batch_prioritised": False,
        # fairseq sums over the layers; this is 0.01 times the 12 sparse layers of the published model, on their mean.
        "balance_weight": 0.12,
        "z_weight": 0.0,
        "jitter": 0.0,
        "router_init_scale": 1.0,
        "expert_dropout": 0.0,
        "output_masking": 0.2,
        "extra_dense": False,
    },
}


def table() -> str:
    """Return the presets as a Markdown table, a key a row, as docs/moe.md has it between two comments."""
    keys = list(next(iter(PRESETS.values())))
    lines = [f"| `model.moe.` | {' | '.join(f'`{name}`' for name in PRESETS)} |", "|---|" + "---|" * len(PRESETS)]
    for key in keys:
        lines.append(f"| `{key}` | {' | '.join(_spelt(values[key]) for values in PRESETS.values())} |")
    return "\n".join(["<!-- presets: python -m nmt.config.reference presets -->", *lines, "<!-- end of presets -->"])


def _spelt(value: Any) -> str:
    return "null" if value is None else str(value).lower()


def expanded(moe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a `model.moe` section with those of its preset, if it names a known one, spelt out."""
    preset = moe.get("preset")
    return {**PRESETS.get(preset, {}), **moe} if isinstance(preset, str) else dict(moe)
