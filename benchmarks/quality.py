"""Does sparsity pay? Dense against 8 and 32 experts: the same steps, the same batches, the same active arithmetic.

    python benchmarks/quality.py
    python benchmarks/quality.py --device gpu --recipe mix100 --models dense moe8 moe32 moe128 --jobs 4 key=value ...

Trains a recipe through `nmt-train` for every model and seed, and tabulates the development loss and the BLEU of every
direction, or of thirds of them by size (GShard's claim, section 5, at small scale). A sparse model sends every token to
two of its experts and has capacity for both (2N/E), so the dense model has feed-forward layers 1.5 times as wide: half
of the layers of the sparse ones do the work of two. Runs are kept, and a run that is done is not done again.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from harness import circumstances, positive, print_table
from training_runs import make_parser, train

Facts = dict[str, Any]

MODELS = {
    "dense": 0,
    "moe8": 8,
    "moe32": 32,
    "moe128": 128,
}
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax"]


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(PACKAGES, arguments.device)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    jobs = [(model, seed) for seed in range(1, arguments.seeds + 1) for model in arguments.models]
    folder = Path(arguments.folder)
    places: Queue[list[int]] = Queue()
    processors = sorted(os.sched_getaffinity(0))
    for number in range(arguments.jobs):
        places.put(processors[number :: arguments.jobs])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: _run(arguments, folder, *job, places), jobs))
    rows = {f"{model}/{seed}": result for (model, seed), result in zip(jobs, results, strict=True)}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**about, "runs": rows}, indent=1) + "\n")
    _report(rows, arguments.models)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__, "runs/quality")
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=["dense", "moe8", "moe32"], help="what to train")
    add("--hidden", type=positive, default=768, help="width of the experts; the default is that of moe_8e_tiny")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where; runs on a GPU share it")
    add("--seeds", type=int, default=2, help="runs of every model, with the seeds 1, 2, ...")
    add("--steps", type=int, default=1800, help="steps of a run")
    add(
        "--jobs",
        type=int,
        choices=range(1, len(os.sched_getaffinity(0)) + 1),
        default=1,
        help="runs at a time, each on its share of the processors",
    )
    return parser


def _run(arguments: argparse.Namespace, folder: Path, model: str, seed: int, places: "Queue[list[int]]") -> Facts:
    """Train and evaluate one model on a free share of the processors, and return its scores."""
    shape = _shape(MODELS[model], arguments.hidden)
    steps = [f"seed={seed}", f"train.steps={arguments.steps}", "train.max_minutes=null"]
    keys = [f"recipe={arguments.recipe}", *arguments.overrides, *shape, *steps]
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if arguments.device == "gpu":
        environment["JAX_PLATFORMS"] = "cuda"
    processors = places.get()
    run = train(folder / f"{model}-{seed}", keys, environment=environment, processors=processors)
    places.put(processors)
    return _facts(run)


def _shape(experts: int, hidden: int) -> list[str]:
    """Return the keys of a model with so many experts, or of the dense one that does the same arithmetic."""
    if not experts:
        return ["model.moe=null", f"model.hidden={hidden * 3 // 2}"]
    return [f"model.moe.experts={experts}", "model.moe.capacity_factor=2.0", f"model.hidden={hidden}"]


def _facts(run: Path) -> Facts:
    """Read the development loss of the last step, and BLEU, from a run that is done."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "dev"][-1]
    (matrix,) = run.glob(f"evaluation/{last['step']}/*/matrix.json")
    results = json.loads(matrix.read_text())["results"]
    parameters = next(line for line in run.with_suffix(".log").read_text().splitlines() if "parameters:" in line)
    sizes = json.loads((run / "data" / "stats.json").read_text())["directions"]
    return {
        "parameters": parameters.strip(),
        "step": last["step"],
        "dev": last["nll"],
        "minutes": last["seconds"] / 60,
        "nll": {name.removeprefix("nll/"): value for name, value in last.items() if name.startswith("nll/")},
        "bleu": {result["direction"]: result["bleu"] for result in results},
        "pairs": {result["direction"]: sizes[result["direction"]]["splits"]["train"]["pairs"] for result in results},
    }


MOST = 12  # directions that have a column of their own


def _columns(row: Facts) -> dict[str, list[str]]:
    """Return what columns of BLEU are the mean of: directions, or thirds of them by their pairs, and both sides."""
    pairs = row["pairs"]
    columns = {direction: [direction] for direction in pairs}
    if len(pairs) > MOST:
        ranked, third = sorted(pairs, key=lambda name: -pairs[name]), len(pairs) // 3
        parts = {"large": ranked[:third], "middle": ranked[third:-third], "small": ranked[-third:]}
        columns = {f"{name} ({len(part)})": part for name, part in parts.items()}
    into, out = ([name for name in pairs if name.endswith("-en") == side] for side in (True, False))
    return columns | {name: part for name, part in (("into English", into), ("out of English", out)) if part}


def _report(rows: dict[str, Facts], models: Sequence[str]) -> None:
    columns = _columns(next(iter(rows.values())))
    for model in models:
        mine = [row for name, row in rows.items() if name.startswith(f"{model}/")]
        rows[f"**{model}**, mean"] = {
            measure: {name: statistics.fmean(row[measure][name] for row in mine) for name in mine[0][measure]}
            for measure in ("bleu", "nll")
        } | {name: statistics.fmean(row[name] for row in mine) for name in ("dev", "minutes")}
    print("\nBLEU:\n")
    table = [[name, *_cells(row["bleu"], columns, 1), f"{row['minutes']:.1f}"] for name, row in rows.items()]
    print_table(["model, seed", *columns, "minutes"], table)
    print("\ndevelopment loss, nats a token:\n")
    table = [[name, f"{row['dev']:.3f}", *_cells(row["nll"], columns, 3)] for name, row in rows.items()]
    print_table(["model, seed", "all", *columns], table)
    print()
    for model in models:
        print(f"{model}: {rows[f'{model}/1']['parameters']}")


def _cells(values: dict[str, float], columns: dict[str, list[str]], digits: int) -> list[str]:
    return [f"{statistics.fmean(values[name] for name in part):.{digits}f}" for part in columns.values()]


if __name__ == "__main__":
    main()
