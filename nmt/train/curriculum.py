"""The curriculum: stages of a run that draw different directions.

A stage may end at a checkpoint, after a number of steps or because its development loss no longer falls. The position
of the data holds the stage and the step at which it was entered; the losses are read from the lines of metrics.jsonl.
So a run that goes on from a checkpoint decides as the run that wrote it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nmt.config import DataConfig
from nmt.data.mixture import Mixture
from nmt.data.store import Stats
from nmt.languages import Direction


@dataclass(frozen=True)
class Curriculum:
    """The stages of a run.

    Attributes:
      data: `data.mixture.stages`, empty for a run without stages.
      members: names of the directions that are drawn, by stage.
    """

    data: DataConfig
    members: tuple[tuple[str, ...], ...]

    @classmethod
    def from_store(cls, data: DataConfig, directions: Iterable[Direction], stats: Stats) -> "Curriculum":
        """Return the curriculum of a recipe and its store."""
        pairs = {direction: stats.direction(direction).splits["train"].pairs for direction in directions}
        mixture = Mixture(pairs, data)
        members = (tuple(map(str, mixture.members(stage))) for stage in range(len(mixture.stages)))
        return cls(data, tuple(members))

    def ends(self, stage: int, began: int, step: int, lines: Iterable[Mapping[str, Any]]) -> bool:
        """Return whether a stage ends at a checkpoint.

        Args:
          stage: its number, from 0.
          began: the step after which it was entered.
          step: the step of the checkpoint.
          lines: the development losses of the run, by `step` and `nll/DIRECTION`, in order.
        """
        if not self.data.mixture.stages:
            return False
        config = self.data.mixture.stages[stage]
        if config.steps is not None and step - began >= config.steps:
            return True
        losses = [self._loss(stage, line) for line in lines if began < line["step"] <= step]
        return config.patience is not None and since_best(losses) >= config.patience

    def _loss(self, stage: int, line: Mapping[str, Any]) -> float:
        """Return the development loss of a stage: nats per token, a mean over its directions, whatever their sizes."""
        found = [float(line[f"nll/{name}"]) for name in self.members[stage] if f"nll/{name}" in line]
        return sum(found) / len(found) if found else math.inf


def since_best(losses: list[float]) -> int:
    """Return how many losses there were after the first of the lowest ones."""
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0
