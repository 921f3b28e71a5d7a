"""Stability of sparse training (ST-MoE, section 3, at small scale): what z-loss, jitter and a float32 router do.

    python benchmarks/stability.py

Trains a small sparse model on the text of the recipe `quickstart` at a learning rate that is too high for comfort and
without clipping, several times for every variant, and tabulates losses, the growth of the router's logits and how many
runs diverged. A run has diverged if a loss is not finite, or if the mean loss of its last window is more than half a
nat above that of its best one.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import circumstances, print_table

Facts = dict[str, Any]

VARIANTS = {
    "baseline": [],
    "z-loss 1e-3": ["model.moe.z_weight=1e-3"],
    "z-loss 1e-2": ["model.moe.z_weight=1e-2"],
    "jitter 1e-2": ["model.moe.jitter=1e-2"],
    "router in bfloat16": ["model.moe.router_dtype=bfloat16"],
    "bfloat16 router, z-loss 1e-3": ["model.moe.router_dtype=bfloat16", "model.moe.z_weight=1e-3"],
    "no balance loss": ["model.moe.balance_weight=0.0"],
}
MODEL = [
    "model.width=128",
    "model.hidden=512",
    "model.head_width=32",
    "model.moe.experts=16",
    "model.moe.every=1",
    "model.moe.capacity_factor=1.25",
    "model.moe.second_expert=all",
    "train.optimizer.clip_norm=null",
    "train.schedule.name=constant",
    "train.schedule.warmup_steps=20",
    "train.ema_decay=null",
]
WINDOW = 50  # steps of a mean
WORSE = 0.5  # nats above the best window that count as diverged
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax"]


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(PACKAGES)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    print(f"learning rate {arguments.learning_rate:g}, {arguments.steps} steps, {arguments.seeds} seeds\n", flush=True)
    rows = {}
    for name in arguments.variants:
        runs = [_train(VARIANTS[name], seed, arguments) for seed in range(1, arguments.seeds + 1)]
        rows[name] = runs
        print(f"{name}: {', '.join(_summary(run) for run in runs)}", flush=True)
    print()
    _report(rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**about, "runs": rows}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    add("--seeds", type=int, default=3, help="runs of every variant, with the seeds 1, 2, ...")
    add("--steps", type=int, default=400, help="steps of a run")
    add("--learning-rate", type=float, default=0.02, help="of Adam, reached after 20 steps and kept")
    add("--folder", default="runs/stability", help="where vocabulary and text are kept")
    add("--json", metavar="FILE", help="write every figure there")
    return parser


def _train(changes: Sequence[str], seed: int, arguments: argparse.Namespace) -> Facts:
    """Train one model, and return its losses and router logits, step by step."""
    import contextlib

    import jax
    from etils import epath

    from nmt.config import load_recipe
    from nmt.data.pipeline import dev_batches, train_batches
    from nmt.models.dtypes import resolve_model_dtype
    from nmt.recipes.stages import RunPreparation
    from nmt.recipes.terminal import TerminalProgress
    from nmt.sharding import make_mesh
    from nmt.train.step import make_trainer

    keys = [*MODEL, *changes, f"train.schedule.learning_rate={arguments.learning_rate}", "data.temperature=1"]
    recipe = load_recipe("quickstart", keys)
    recipe = recipe.model_copy(update={"model": resolve_model_dtype(recipe.model)})
    preparation = RunPreparation(recipe, epath.Path(arguments.folder), TerminalProgress())
    vocabularies = preparation.vocabularies()
    preparation.stats(vocabularies)
    # What is learnt from is the same for all; the seed is that of the weights, the order and the noise.
    recipe = recipe.model_copy(update={"seed": seed})
    mesh = make_mesh(data=1, expert=1, model=1, devices=jax.devices()[:1])
    losses, logits = [], []
    began = time.monotonic()
    with jax.set_mesh(mesh):
        trainer = make_trainer(recipe, vocabularies.sizes, mesh)
        state = trainer.initial()
        store, directions, rows = preparation.store, preparation.directions, recipe.rows
        with contextlib.closing(train_batches(store, directions, recipe.data, rows, seed)) as batches:
            for _ in range(arguments.steps):
                state, metrics, _ = trainer.step(state, trainer.place(next(batches)))
                host = jax.device_get(metrics)
                losses.append(float(host.nll.sum() / host.tokens.sum()))
                logits.append(max(math.sqrt(float(stats.z_loss.max())) for stats in host.routing.values()))
                if not math.isfinite(losses[-1]):
                    break
        nll = tokens = 0.0
        for batch in list(dev_batches(store, directions, recipe.data, rows))[: recipe.train.dev_batches]:
            metrics = jax.device_get(trainer.evaluate(state, trainer.place(batch)))
            nll, tokens = nll + float(metrics.nll.sum()), tokens + float(metrics.tokens.sum())
    return {"losses": losses, "router": logits, "dev": nll / tokens, "seconds": time.monotonic() - began}


def _windows(values: Sequence[float]) -> list[float]:
    """Return the means of a series, window by window, the last window whole."""
    ends = range(len(values), 0, -WINDOW)
    return [statistics.fmean(values[max(0, end - WINDOW) : end]) for end in ends][::-1]


def _diverged(run: Facts) -> bool:
    windows = _windows(run["losses"])
    return not all(map(math.isfinite, [*run["losses"], run["dev"]])) or windows[-1] > min(windows) + WORSE


def _spikes(run: Facts) -> int:
    """Count the steps, after the first window, whose loss is more than half a nat above the mean of those before."""
    losses = run["losses"]
    return sum(losses[at] > statistics.fmean(losses[at - WINDOW : at]) + WORSE for at in range(WINDOW, len(losses)))


def _summary(run: Facts) -> str:
    return f"{_windows(run['losses'])[-1]:.3f}{' diverged' if _diverged(run) else ''} ({run['seconds']:.0f} s)"


def _report(rows: dict[str, list[Facts]]) -> None:
    header = ["variant", "stable", "training loss, last 50", "dev loss", "spikes", "router logits, first 50", "last 50"]
    print_table(header, [_row(name, runs) for name, runs in rows.items()])
    print(f"\nRouter logits: the greatest root mean square of log(sum exp) of a layer, mean over {WINDOW} steps.")


def _row(name: str, runs: Sequence[Facts]) -> list[str]:
    stable = [run for run in runs if not _diverged(run)]

    def over(runs: Sequence[Facts], number: Any) -> str:
        values = [number(run) for run in runs]
        if not values or not all(map(math.isfinite, values)):
            return "-"
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.fmean(values):.3f} +- {spread:.3f}"

    return [
        name,
        f"{len(stable)}/{len(runs)}",
        over(stable, lambda run: _windows(run["losses"])[-1]),
        over(stable, lambda run: run["dev"]),
        str(sum(map(_spikes, runs))),
        over(runs, lambda run: statistics.fmean(run["router"][:WINDOW])),
        over(runs, lambda run: statistics.fmean(run["router"][-WINDOW:])),
    ]


if __name__ == "__main__":
    sys.exit(main())
