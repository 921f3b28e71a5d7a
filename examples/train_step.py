"""Train by hand: a loop of one's own around the jitted step, on the data that a run has prepared.

    nmt-train recipe=quickstart                     # once: fetches and prepares the text
    python examples/train_step.py runs/quickstart --steps 20

`nmt-train` does this and more: checkpoints, the development loss, telemetry, several hosts, stopping at a signal.
"""

import argparse
import contextlib
from pathlib import Path

import numpy as np

from nmt.config import read_run_recipe
from nmt.data.pipeline import train_batches
from nmt.data.vocabularies import Vocabularies
from nmt.languages import parse_directions
from nmt.sharding import make_layout
from nmt.train.step import make_trainer


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Train a fresh model for a few steps, on the data of a run.")
    parser.add_argument("run", type=Path, help="folder of a run, such as runs/quickstart")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()

    # A run's own recipe has every key spelt out. Recipes are frozen; a changed one is another one.
    recipe = read_run_recipe(arguments.run)
    vocabularies = Vocabularies.load(arguments.run / "vocab", recipe.vocab)
    directions = parse_directions(recipe.data.directions)

    # The layout is the mesh of devices and the table that says which axes of arrays are split over it.
    layout = make_layout(recipe.mesh)
    with layout.use() as mesh:
        trainer = make_trainer(recipe, vocabularies.sizes, mesh)
        state = trainer.initial()  # weights drawn from recipe.seed
        # An endless stream of packed batches; a thread prepares some of them ahead, hence the closing().
        stream = train_batches(arguments.run / "data", directions, recipe.data, recipe.rows, recipe.seed)
        with contextlib.closing(stream) as batches:
            for _ in range(arguments.steps):
                # `place` puts a batch of NumPy arrays on the devices. The old state is donated: it is gone afterwards.
                state, metrics, scalars = trainer.step(state, trainer.place(next(batches)))
                # Sums by direction, in the order of the recipe: nats per token = nll / tokens.
                nll = np.asarray(metrics.nll) / np.maximum(np.asarray(metrics.tokens), 1)
                by_direction = "  ".join(f"{name} {one:.3f}" for name, one in zip(directions, nll, strict=False))
                print(f"step {int(state.step)}  loss {float(metrics.loss):.3f}  {by_direction}")
        print(f"norm of the last gradient: {float(scalars['gradient_norm']):.3f}")


if __name__ == "__main__":
    main()
