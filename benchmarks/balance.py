"""What keeps experts evenly loaded: the load-balancing loss of GShard beside the biases of DeepSeek-V3.

    python benchmarks/balance.py
    python benchmarks/balance.py --systems gshard gshard_all biases --seeds 2 --jobs 2

Trains a recipe through `nmt-train` for every system and seed: the same steps, batches, layers and slots, only the
routing differs. Tabulates, by stack, the load of the busiest and of the idlest expert and the dropped choices in the
first tenth and in the second half of the steps, and the development loss. Runs are kept, and a run that is done is not
done again.

Where there is a loss `nmt-train` counts first choices as load, and all choices where there are biases. Here the load
counts every choice that wants a slot, of all systems: an expert may be first for many tokens and second for few.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from harness import circumstances, positive, print_table
from training_runs import make_parser, train

Line = Mapping[str, Any]  # of metrics.jsonl

# Two experts for every token and slots for both (2N/E) in every other layer, whatever the routing.
SYSTEMS = {
    "gshard": ["model.moe.preset=gshard"],
    "gshard_all": ["model.moe.preset=gshard", "model.moe.second_expert=all"],  # as many choices as with biases
    "biases": ["model.moe.preset=deepseek_v3", "model.moe.every=2", "model.moe.shared=none"],
}
STACKS = ("encoder", "decoder")
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax"]


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        _train_here(sys.argv[2:])
        return
    arguments = _parser().parse_args()
    about = circumstances(PACKAGES)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    runs = [(system, seed) for seed in range(1, arguments.seeds + 1) for system in arguments.systems]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        folders = list(pool.map(lambda run: _train(arguments, *run), runs))
    results = {run: _facts(folder, arguments.steps) for run, folder in zip(runs, folders, strict=True)}
    if arguments.json:
        named = {f"{system}/{seed}": facts for (system, seed), facts in results.items()}
        Path(arguments.json).write_text(json.dumps({**about, "runs": named}, indent=1) + "\n")
    _report(results, arguments.systems)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "runs/balance")
    add = parser.add_argument
    add("--systems", nargs="+", choices=SYSTEMS, default=["gshard", "biases"], help="what to train")
    add("--seeds", type=positive, default=2, help="runs of every system, with the seeds 1, 2, ...")
    add("--steps", type=positive, default=1800, help="steps of a run")
    add("--log-every", type=positive, default=20, help="steps over which a figure of the telemetry is taken")
    add("--jobs", type=positive, default=1, help="runs at a time")
    return parser


def _train(arguments: argparse.Namespace, system: str, seed: int) -> Path:
    """Train one system in a process of its own, and return the folder of the run."""
    keys = [
        f"recipe={arguments.recipe}",
        f"seed={seed}",
        f"train.steps={arguments.steps}",
        f"train.log_every={arguments.log_every}",
        "train.max_minutes=null",
        "evaluate.sentences=1",  # only the development loss is told
        *SYSTEMS[system],
        *arguments.overrides,
    ]
    return train(Path(arguments.folder) / f"{system}-{seed}", keys, command=[sys.executable, __file__, "--run"])


def _train_here(keys: Sequence[str]) -> None:
    """Be `nmt-train`, with a load that counts all choices."""
    from nmt.cli.train import main as nmt_train
    from nmt.models.moe import layer

    with (
        mock.patch.object(layer, "statistics", _of_all_choices(layer.statistics)),
        mock.patch.object(sys, "argv", ["nmt-train", *keys]),
    ):
        nmt_train()


def _of_all_choices(statistics: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of the statistics of a layer, with the load of all choices in place of first choices."""
    import jax
    import jax.numpy as jnp

    def measure(decision: Any, info: Any, experts: int, balanced_groups: int | None = None) -> Any:
        found = statistics(decision, info, experts, balanced_groups)
        wanted = decision.moves.kept | decision.dropped  # [G,N,K]
        count = jax.nn.one_hot(jnp.where(wanted, decision.moves.expert, experts), experts).sum(axis=(0, 1, 2))
        return replace(found, load=count / jnp.maximum(count.sum(), 1.0))

    return measure


def _facts(run: Path, steps: int) -> dict[str, Any]:
    """Read what became of the load from a run that is done, and the development loss of its last step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    parts = {
        "first tenth": [line for line in train if line["step"] <= steps / 10] or train[:1],
        "second half": [line for line in train if line["step"] > steps / 2],
    }
    last = [line for line in lines if line["kind"] == "dev"][-1]
    return {
        "step": last["step"],
        "dev": last["nll"],
        "minutes": last["seconds"] / 60,
        **{name: {stack: _load(part, f"experts/{stack}/") for stack in STACKS} for name, part in parts.items()},
    }


def _load(lines: Sequence[Line], prefix: str) -> dict[str, float]:
    """Return the means of the figures of a stack; of the biases, the extremes of the last line."""
    figures = ["busiest", "idlest", "dropped_first", "dropped_second"]
    means = {name: statistics.fmean(line[prefix + name] for line in lines) for name in figures}
    biases = ("bias_lowest", "bias_highest")
    return means | {name: lines[-1][prefix + name] for name in biases if prefix + name in lines[-1]}


def _report(results: Mapping[tuple[str, int], dict[str, Any]], systems: Sequence[str]) -> None:
    """Print the tables: the load of each part of the training, and the development loss."""
    for part in ("first tenth", "second half"):
        print(f"\nload of all choices, {part} of the steps (1 = fair share; dropped: % of tokens):\n")
        header = ["system, seed", "stack", "busiest", "idlest", "first dropped", "second dropped", "biases"]
        print_table(
            header, [_row(run, stack, facts[part][stack]) for run, facts in results.items() for stack in STACKS]
        )
    print("\ndevelopment loss, nats a token:\n")
    rows = [
        [f"{system}, {seed}", f"{facts['dev']:.3f}", f"{facts['minutes']:.1f}"]
        for (system, seed), facts in results.items()
    ]
    for system in systems:
        mine = [facts for (name, _), facts in results.items() if name == system]
        means = [statistics.fmean(facts[name] for facts in mine) for name in ("dev", "minutes")]
        rows.append([f"**{system}**, mean", f"{means[0]:.3f}", f"{means[1]:.1f}"])
    print_table(["system, seed", "loss", "minutes"], rows)


def _row(run: tuple[str, int], stack: str, load: Mapping[str, float]) -> list[str]:
    biases = f"{load['bias_lowest']:+.3f} to {load['bias_highest']:+.3f}" if "bias_lowest" in load else "none"
    return [
        f"{run[0]}, {run[1]}",
        stack,
        *(f"{load[name]:.2f}" for name in ("busiest", "idlest")),
        *(f"{100 * load[name]:.1f}" for name in ("dropped_first", "dropped_second")),
        biases,
    ]


if __name__ == "__main__":
    main()
