"""The type that a model computes in where a recipe leaves it to the machine, and the precision of inference."""

import platform as machine
from pathlib import Path

from nmt.config import ModelConfig
from nmt.models.precision import AUTO, PRECISIONS, Precision, check_precision
from nmt.sharding import platform


def resolve_dtype(name: str) -> str:
    """Return a dtype; for `auto` bfloat16 where the devices of the mesh multiply it natively, else float32."""
    if name != "auto":
        return name
    if platform() != "cpu":
        return "bfloat16"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    if machine.system() != "Linux":
        return False
    flags = (
        line for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines() if line.startswith("flags")
    )
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(next(flags, "").split())


def resolve_model_dtype(config: ModelConfig) -> ModelConfig:
    """Return the configuration with its dtype resolved for the devices of the mesh."""
    return config.model_copy(update={"dtype": resolve_dtype(config.dtype)})


def resolve_precision(name: str | None, dtype: str) -> Precision:
    """Return the precision of matrices in inference for what a person asked for.

    Args:
      name: float32, bfloat16, int8; `auto` for the fastest one on the devices of the mesh: bfloat16 where they multiply
        it natively, else int8; None: that of the recipe.
      dtype: the recipe's model.dtype.

    Raises:
      UserError: there is no such precision.
    """
    check_precision(name)
    if name == AUTO:
        return "bfloat16" if resolve_dtype("auto") == "bfloat16" else "int8"
    return PRECISIONS[resolve_dtype(dtype) if name is None else name]


def inference_config(config: ModelConfig, precision: Precision) -> ModelConfig:
    """Return the configuration of a model for inference: experts multiply in its dtype, int8 or not."""
    return config.model_copy(update={"dtype": resolve_dtype("auto") if precision == "int8" else precision})
