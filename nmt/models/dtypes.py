"""The type that a model computes in, where a recipe leaves it to the machine."""

import platform as machine
from pathlib import Path

from nmt.config import ModelConfig
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
