"""What telemetry of experts costs: training steps with it against steps of a model that tells nothing of experts.

python benchmarks/telemetry_cost.py
python benchmarks/telemetry_cost.py --directions 200 --experts 128

Both sides do what the loop of `nmt-train` does with a step: dispatch it, wait, add its numbers to the window, report.
The side without returns no statistics of routing, so that XLA computes none but those that are losses. Steps of the two
alternate; of each side the best of all rounds is taken, in seconds and in seconds of processors, and their ratios
printed. Added to the side with is its share of what is written now and then, measured by itself: a line of
metrics.jsonl and of TensorBoard every 50 steps, the table of experts by direction every 1,000, the defaults. On a
machine that does other work as well, the seconds of processors are the ones to go by.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from nmt.config import DataConfig, ModelConfig, MoEConfig, Recipe, TrainConfig, VocabularySizes
from nmt.data.batch import Batch
from nmt.languages import all_languages
from nmt.sharding import make_mesh
from nmt.train.checkpoints import Progress
from nmt.train.expert_load import UsageCounter
from nmt.train.objective import Metrics, objective
from nmt.train.step import make_trainer
from nmt.train.telemetry import Recorder, StepWindow, flatten
from nmt.train.usage import Usage, write_usage

LENGTH = 32  # S and T
PAIRS = 4  # of a row


def recipe(arguments: argparse.Namespace) -> Recipe:
    """Return a recipe of the shape asked for."""
    codes = [language.code for language in all_languages() if language.code != "en"]
    names = [f"{code}-en" for code in codes] + [f"en-{code}" for code in codes]
    if arguments.directions > len(names):
        raise SystemExit(f"at most {len(names)} directions")
    return Recipe(
        name="benchmark",
        data=DataConfig(
            corpora=("random",),
            directions=tuple(names[: arguments.directions]),
            source_length=LENGTH,
            target_length=LENGTH,
        ),
        model=ModelConfig(
            width=arguments.width, hidden=4 * arguments.width, dtype="float32", moe=MoEConfig(experts=arguments.experts)
        ),
        train=TrainConfig(tokens_per_batch=arguments.rows * LENGTH),
    )


def batch(rows: int, directions: int, vocabulary: int, seed: int) -> Batch:
    """Return rows of `PAIRS` random pairs of equal lengths, each of a random direction."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(4, vocabulary, (3, rows, LENGTH)).astype(np.int32)
    of_pair = np.arange(LENGTH, dtype=np.int32) // (LENGTH // PAIRS)
    segment = np.broadcast_to(of_pair + 1, (rows, LENGTH))
    position = np.broadcast_to(np.arange(LENGTH, dtype=np.int32) % (LENGTH // PAIRS), (rows, LENGTH))
    direction = draw.integers(0, directions, (rows, PAIRS)).astype(np.int32)[:, of_pair]
    return Batch(tokens[0], segment, position, tokens[1], tokens[2], segment, position, direction)


def silent(*arguments: Any, **more: Any) -> tuple[jax.Array, Metrics]:
    """Return what `objective` does, without statistics of routing."""
    loss, metrics = objective(*arguments, **more)
    return loss, replace(metrics, routing={})


class Side:
    """The training loop with telemetry of experts, or without."""

    def __init__(self, config: Recipe, vocabulary: int, telling: bool):
        self.config, self.telling = config, telling
        self.trainer = make_trainer(config, VocabularySizes.shared(vocabulary), make_mesh())
        self.layers = config.model.sparse_layers if telling else {}
        self.batches = [
            self.trainer.place(batch(config.rows, len(config.data.directions), vocabulary, seed)) for seed in range(4)
        ]
        self.state = self.trainer.initial()
        self.usage, self.number = UsageCounter(), 0
        self.window = StepWindow(config.data.directions, self.layers)
        with mock.patch("nmt.train.step.objective", objective if telling else silent):  # while it is compiled
            self.steps(2)
        self.best = self.busy = np.inf

    best = busy = np.inf

    def steps(self, count: int) -> None:
        """Do so many steps, and keep the shortest times."""
        for _ in range(count):
            self.number += 1
            began, busy = time.perf_counter(), time.process_time()
            self.state, metrics, scalars = self.trainer.step(self.state, self.batches[self.number % 4])
            if self.telling:
                self.usage.add(metrics.routing)
            jax.block_until_ready(metrics)
            self.window.add(metrics, scalars, 1.0)
            self.report()
            self.best = min(self.best, time.perf_counter() - began)
            self.busy = min(self.busy, time.process_time() - busy)

    def report(self) -> dict[str, float]:
        """Return the numbers of the window, as they are recorded."""
        return flatten(self.window.report(Progress(step=self.number), 10**6))

    def write_line(self, recorder: Recorder) -> None:
        """Record the window."""
        recorder.write(Progress(step=self.number), self.report(), "train")

    def write_table(self, folder: Path) -> None:
        """Write who uses which expert, as at a checkpoint."""
        counts, directions = self.usage.take(), self.config.data.directions
        in_order = {name: counts[name] for name in self.layers}
        write_usage(folder, Usage(1, self.number, directions, self.layers, in_order))


def written(sides: list[Side]) -> tuple[float, float]:
    """Return the seconds of a step that lines take more with telemetry than without, and those that tables take."""
    telling, silence = sides
    lines = dict.fromkeys(sides, np.inf)
    with tempfile.TemporaryDirectory() as name:
        for side in sides * 5:
            folder = Path(name) / str(side.telling)
            folder.mkdir(exist_ok=True)
            with Recorder(folder, 0) as recorder:
                side.write_line(recorder)  # the first one makes files
                began = time.perf_counter()
                side.write_line(recorder)
                lines[side] = min(lines[side], time.perf_counter() - began)
        began = time.perf_counter()
        telling.write_table(Path(name))
        table = time.perf_counter() - began
    config = telling.config.train
    return (lines[telling] - lines[silence]) / config.log_every, table / config.checkpoint_every


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = {"directions": 40, "experts": 8, "width": 256, "rows": 64, "vocabulary": 8000, "rounds": 20}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    arguments = parser.parse_args()
    config = recipe(arguments)
    with jax.set_mesh(make_mesh()):
        sides = [Side(config, arguments.vocabulary, telling) for telling in (True, False)]
        for number in range(arguments.rounds):
            for side in sides if number % 2 else sides[::-1]:
                side.steps(3)
        lines, tables = written(sides)
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {arguments}")
    for name in ("best", "busy"):
        with_it, without = (getattr(side, name) for side in sides)
        ratio = (with_it + lines + tables) / without
        print(f"{name}: {1e3 * with_it:.2f} ms with, {1e3 * without:.2f} ms without; all together {ratio:.4f} of it")
    print(f"of a step, lines take {1e3 * lines:.3f} ms more, and tables {1e3 * tables:.3f} ms")


if __name__ == "__main__":
    main()
