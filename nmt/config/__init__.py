"""The frozen models of a recipe, and how a recipe is loaded, merged, overridden and documented."""

from nmt.config.schema import (
    CleanConfig,
    DataConfig,
    DecodeConfig,
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    MoEConfig,
    OptimizerConfig,
    Recipe,
    ScheduleConfig,
    Section,
    TrainConfig,
    VocabConfig,
)

__all__ = [
    "CleanConfig",
    "DataConfig",
    "DecodeConfig",
    "EvaluateConfig",
    "MeshConfig",
    "MoEConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "ScheduleConfig",
    "Section",
    "TrainConfig",
    "VocabConfig",
]
