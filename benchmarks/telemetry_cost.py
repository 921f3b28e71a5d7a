"""What the statistics of experts by direction cost: training steps with them against the same steps without.

python benchmarks/telemetry_cost.py
python benchmarks/telemetry_cost.py --directions 200 --experts 128

Both sides do what the loop of `nmt-train` does with a step: dispatch it, wait, add its numbers to the window, report.
The side without asks the model for no directions and counts none. Steps of the two alternate; of each side the best
of all rounds is taken, in seconds and in seconds of processors, and the ratios printed. On a machine that does other
work as well, those of processors are the ones to go by.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

from nmt.config import DataConfig, ModelConfig, MoEConfig, Recipe, TrainConfig, VocabularySizes
from nmt.data.batch import Batch
from nmt.languages import all_languages
from nmt.models.transformer import Transformer
from nmt.sharding import make_mesh
from nmt.train.checkpoints import Progress
from nmt.train.experts import UsageCounter, sparse_layers
from nmt.train.step import make_trainer
from nmt.train.telemetry import Window

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


def without_directions(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of the model that is told of no directions: they are its last two arguments."""
    return lambda model, *arguments: method(model, *arguments[:-2])


class Side:
    """The training loop with or without statistics by direction."""

    def __init__(self, config: Recipe, vocabulary: int, by_direction: bool):
        self.config, self.by_direction = config, by_direction
        self.trainer = make_trainer(config, VocabularySizes.shared(vocabulary), make_mesh())
        self.layers = sparse_layers(config.model)
        self.batches = [
            self.trainer.place(batch(config.rows, len(config.data.directions), vocabulary, seed)) for seed in range(4)
        ]
        self.state = self.trainer.initial()
        self.usage, self.number = UsageCounter(), 0
        self.window = Window(config.data.directions, self.layers)
        self.best = self.busy = self.counted = np.inf
        if by_direction:
            self.steps(2)
        else:
            quiet = {name: without_directions(getattr(Transformer, name)) for name in ("encode", "decode")}
            with mock.patch.multiple(Transformer, **quiet):  # while it is compiled
                self.steps(2)
        self.best = self.busy = self.counted = np.inf

    def steps(self, count: int) -> None:
        """Do so many steps, and keep the shortest times."""
        for _ in range(count):
            self.number += 1
            began, busy = time.perf_counter(), time.process_time()
            self.state, metrics, scalars = self.trainer.step(self.state, self.batches[self.number % 4])
            dispatched = time.perf_counter()
            if self.by_direction:
                self.usage.add(metrics.routing)
            counted = time.perf_counter() - dispatched
            jax.block_until_ready(metrics)
            self.window.add(metrics, scalars, 1.0)
            self.window.report(Progress(step=self.number), 10**6)
            self.best = min(self.best, time.perf_counter() - began)
            self.busy = min(self.busy, time.process_time() - busy)
            self.counted = min(self.counted, counted)
            if self.number % 50 == 0:
                self.window = Window(self.config.data.directions, self.layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = {"directions": 40, "experts": 8, "width": 256, "rows": 64, "vocabulary": 8000, "rounds": 20}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    arguments = parser.parse_args()
    config = recipe(arguments)
    with jax.set_mesh(make_mesh()):
        sides = [Side(config, arguments.vocabulary, by_direction) for by_direction in (True, False)]
        for number in range(arguments.rounds):
            for side in sides if number % 2 else sides[::-1]:
                side.steps(3)
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {arguments}")
    for name in ("best", "busy"):
        with_it, without = (getattr(side, name) for side in sides)
        print(f"{name}: {1e3 * with_it:.2f} ms with, {1e3 * without:.2f} ms without, ratio {with_it / without:.4f}")
    print(f"to dispatch the count takes the host {1e3 * sides[0].counted:.3f} ms of a step")


if __name__ == "__main__":
    main()
