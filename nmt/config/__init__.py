"""The frozen models of a recipe, and how a recipe is loaded, merged, overridden and documented."""

from nmt.config.loading import load_recipe
from nmt.config.runs import RECIPE_FILE, compare_recipes, dump_recipe, read_run_recipe, resume_conflicts, save_recipe
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
    VocabularySizes,
)

__all__ = [
    "RECIPE_FILE",
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
    "VocabularySizes",
    "compare_recipes",
    "dump_recipe",
    "load_recipe",
    "read_run_recipe",
    "resume_conflicts",
    "save_recipe",
]
