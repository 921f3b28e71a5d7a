"""The frozen sections of a recipe: every key, its type, its bounds, its default and its description.

`--help`, docs/configuration.md and the JSON schema for editors are generated from the descriptions here and in the
modules beside it (schema_data, schema_model, schema_train); a section is described by its docstring.
Keys that cannot be described in one sentence do not belong here.
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nmt.config.schema_data import CleanConfig, DataConfig, VocabConfig, VocabularySizes
from nmt.config.schema_decode import DecodeConfig
from nmt.config.schema_model import ModelConfig, MoEConfig
from nmt.config.schema_train import OptimizerConfig, ScheduleConfig, TrainConfig
from nmt.config.section import Positive, Section

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
    "VocabularySizes",
]


def _size(use: str) -> Any:
    return Field(None, ge=-1, description=f"Devices that {use}; null: the preset's.")


class MeshConfig(Section):
    """The device mesh: a preset, and how many devices along its axes; -1, at most once, takes what is left."""

    preset: str = Field(
        "expert",
        min_length=1,
        description="Axes of the mesh and the logical axes split over them, by name (of a file in "
        "recipes/meshes/) or path.",
    )
    data: int | None = _size("share the batch rows, with all weights on each (data parallelism)")
    fsdp: int | None = _size("share the batch rows, and shard dense weights, which are gathered when used")
    expert: int | None = _size("share the experts and, as in GShard, the batch rows")
    model: int | None = _size("share hidden units, heads and the vocabulary (tensor parallelism)")
    slices: Positive | None = Field(
        None,
        description="TPU slices, or groups of hosts, that the data axis spans; null: as the devices say, one if they "
        "do not.",
    )
    axis_types: Literal["auto", "explicit"] = Field(
        "auto",
        description="Placement of arrays that are not annotated: chosen by XLA (auto, as in GShard), or by JAX from "
        "the types of arrays, where a clash is an error (explicit).",
    )


class EvaluateConfig(Section):
    """Evaluation at the end of a run, and by nmt-evaluate."""

    split: Literal["test", "dev"] = Field("test", description="Stored split to translate and score.")
    sentences: Positive | None = Field(
        None, description="Most sentences translated of each direction, from the start of its stored split; null: all."
    )
    references: Literal["normalised", "raw"] = Field(
        "normalised",
        description="normalised: references are brought to the form of the training text, which hypotheses have, "
        "before they are scored. raw: they are scored as they are in the file.",
    )
    samples: int = Field(2, ge=0, description="Sample translations shown at the end of a run.")


class Recipe(Section):
    """A whole run: its text, vocabulary, model, training, decoding and evaluation."""

    name: str = Field(description="Name of the recipe; by default that of its file.")
    description: str = Field("", description="One line for --help.")
    run_dir: str = Field("runs/{name}", min_length=1, description="Folder of the run; {name} is the recipe's name.")
    seed: int = Field(1, ge=0, description="Seed from which everything random derives.")
    data: DataConfig
    vocab: VocabConfig = VocabConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    decode: DecodeConfig = DecodeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("name")
    @classmethod
    def _name_names_a_folder(cls, name: str) -> str:
        if not name or set(name) & set("{}/\\"):
            raise ValueError(f"name={name} is to name a folder: at least one character, and none of {{ }} / \\")
        return name

    @property
    def rows(self) -> int:
        """Rows of a batch (B)."""
        return self.train.tokens_per_batch // self._row_tokens()[1]

    @property
    def slots(self) -> tuple[int, int]:
        """Tokens of sources and of targets that are computed at once, padding included."""
        rows = self.rows // self.train.accumulate
        return rows * self.data.source_length, rows * self.data.target_length

    def _row_tokens(self) -> tuple[str, int]:
        """Return the key of the row length that batches are counted by, and its value."""
        name = f"{self.train.batch_tokens_of}_length"
        return name, getattr(self.data, name)

    @model_validator(mode="after")
    def _rows_divide(self) -> Self:
        name, length = self._row_tokens()
        if self.train.tokens_per_batch % length:
            raise ValueError(
                f"train.tokens_per_batch={self.train.tokens_per_batch} is not a multiple of data.{name}={length}"
            )
        if self.rows % self.train.accumulate:
            raise ValueError(
                f"the {self.rows} rows of a batch are not a multiple of train.accumulate={self.train.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        size = self.model.moe.group_size if self.model.moe else None
        if size is not None and any(count % size for count in self.slots):
            common = math.gcd(*self.slots)
            best = max(divisor for divisor in range(1, min(size, common) + 1) if common % divisor == 0)
            rows, micro_batches = self.rows // self.train.accumulate, self.train.accumulate
            at_once = f"the {rows} rows of a batch" if micro_batches == 1 else f"the {rows} rows of a micro-batch"
            source, target = self.slots
            raise ValueError(
                f"model.moe.group_size={size} does not divide the tokens of {at_once}, {source:,} of sources and "
                f"{target:,} of targets: make it a divisor of both, such as {best}, or change train.tokens_per_batch"
            )
        return self

    @model_validator(mode="after")
    def _positions_are_learnt(self) -> Self:
        longest = max(self.data.source_length, self.data.target_length)
        if self.model.positions == "learned" and longest > self.model.max_positions:
            raise ValueError(
                f"model.max_positions={self.model.max_positions} learnt positions are too few for rows of {longest} "
                "tokens: raise it, or shorten data.source_length and data.target_length"
            )
        return self

    @model_validator(mode="after")
    def _vocabularies_have_embeddings(self) -> Self:
        if self.vocab.target_size is not None and self.model.embeddings == "shared":
            raise ValueError(
                "vocab.target_size asks for a vocabulary of its own for the target side: set model.embeddings=separate"
            )
        return self
