"""Presets of the mixture-of-experts layers: the conventions of five papers, as values of `model.moe`.

A preset stands for its values as if they were written where its name is: values written beside it, or in a later
layer (recipe over model, argument over recipe), win; values of an earlier layer give way. With `top_k: 1` gates are
not normalised, unless somebody writes so, which is an error.
"""

from collections.abc import Mapping
from typing import Any

# Where a paper says nothing, the default of the schema holds. docs/moe.md has the sources, field by field.
PRESETS: dict[str, dict[str, Any]] = {
    "gshard": {
        "every": 2,
        "routing": "token_choice",
        "top_k": 2,
        "normalise": "before",
        "second_expert": "random",
        "second_threshold": 0.5,
        "capacity_factor": 2.0,
        "eval_capacity_factor": None,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "balance_reduction": "mean",
        "z_weight": 0.0,
        "jitter": 0.0,
        "router_init_scale": None,
        "expert_dropout": 0.0,
        "output_masking": 0.0,
        "extra_dense": False,
        "affinity": "sigmoid",
        "bias_rate": 0.001,
        "sequence_balance_weight": 0.0,
        "shared": "none",
    },
    "switch": {
        "every": 2,
        "routing": "token_choice",
        "top_k": 1,
        "normalise": "none",
        "second_expert": "all",
        "second_threshold": 0.5,
        "capacity_factor": 1.25,
        "eval_capacity_factor": 2.0,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "balance_reduction": "mean",
        "z_weight": 0.0,
        "jitter": 0.01,
        "router_init_scale": 0.1,
        "expert_dropout": 0.1,
        "output_masking": 0.0,
        "extra_dense": False,
        "affinity": "sigmoid",
        "bias_rate": 0.001,
        "sequence_balance_weight": 0.0,
        "shared": "none",
    },
    "st_moe": {
        "every": 4,
        "routing": "token_choice",
        "top_k": 2,
        "normalise": "before",
        "second_expert": "random",
        "second_threshold": 0.2,
        "capacity_factor": 1.25,
        "eval_capacity_factor": 2.0,
        "batch_prioritised": True,
        "balance_weight": 0.01,
        "balance_reduction": "mean",
        "z_weight": 0.001,
        "jitter": 0.0,
        "router_init_scale": 0.1,
        "expert_dropout": 0.1,
        "output_masking": 0.0,
        "extra_dense": True,
        "affinity": "sigmoid",
        "bias_rate": 0.001,
        "sequence_balance_weight": 0.0,
        "shared": "none",
    },
    "nllb": {
        "every": 4,
        "routing": "token_choice",
        "top_k": 2,
        "normalise": "after",
        "second_expert": "all",
        "second_threshold": 0.5,
        "capacity_factor": 2.0,
        "eval_capacity_factor": None,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "balance_reduction": "sum",
        "z_weight": 0.0,
        "jitter": 0.0,
        "router_init_scale": None,
        "expert_dropout": 0.0,
        "output_masking": 0.2,
        "extra_dense": False,
        "affinity": "sigmoid",
        "bias_rate": 0.001,
        "sequence_balance_weight": 0.0,
        "shared": "none",
    },
    "deepseek_v3": {
        "every": 1,
        "routing": "bias_balanced",
        "top_k": 2,
        "normalise": "before",
        "second_expert": "all",
        "second_threshold": 0.5,
        "capacity_factor": 2.0,
        "eval_capacity_factor": None,
        "batch_prioritised": False,
        "balance_weight": 0.01,
        "balance_reduction": "mean",
        "z_weight": 0.0,
        "jitter": 0.0,
        "router_init_scale": None,
        "expert_dropout": 0.0,
        "output_masking": 0.0,
        "extra_dense": False,
        "affinity": "sigmoid",
        "bias_rate": 0.001,
        "sequence_balance_weight": 0.0001,
        "shared": "add",
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


def chosen_preset(moe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the preset that a `model.moe` section names; none if it names no known one."""
    name = moe.get("preset")
    return PRESETS.get(name, {}) if isinstance(name, str) else {}


def expanded(moe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a `model.moe` section with those of its preset, if it names a known one, spelt out."""
    values = {**chosen_preset(moe), **moe}
    # A single gate that is normalised is one, and a router without a gradient is nobody's convention.
    return values if "normalise" in moe or values.get("top_k") != 1 else {**values, "normalise": "none"}
