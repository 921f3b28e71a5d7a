"""Does sparsity pay? Dense against 8 and 32 experts: the same steps, the same batches, the same active arithmetic.

    python benchmarks/quality.py

Trains the recipe `quickstart` through `nmt-train` for every model and seed, and tabulates the development loss and the
BLEU of every direction (GShard's claim, section 5, at small scale). A sparse model sends every token to two of its
experts and has capacity for both (2N/E), so the dense model has feed-forward layers 1.5 times as wide: half of the
layers of the sparse ones do the work of two. Runs are kept, and a run that is done is not done again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from harness import circumstances, print_table

Facts = dict[str, Any]

HIDDEN = 768  # of models/moe_8e_tiny.yaml
MODELS = {
    "dense": ["model.moe=null", f"model.hidden={HIDDEN * 3 // 2}"],
    "moe8": ["model.moe.experts=8", "model.moe.capacity_factor=2.0"],
    "moe32": ["model.moe.experts=32", "model.moe.capacity_factor=2.0"],
}
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax"]


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(PACKAGES)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    jobs = [(model, seed) for seed in range(1, arguments.seeds + 1) for model in arguments.models]
    folder = Path(arguments.folder)
    places: Queue[list[int]] = Queue()
    processors = sorted(os.sched_getaffinity(0))
    for number in range(arguments.jobs):
        places.put(processors[number :: arguments.jobs])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: _run(folder, *job, arguments.steps, places), jobs))
    rows = {f"{model}/{seed}": result for (model, seed), result in zip(jobs, results, strict=True)}
    _report(rows, arguments.models)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**about, "runs": rows}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="what to train")
    add("--seeds", type=int, default=2, help="runs of every model, with the seeds 1, 2, ...")
    add("--steps", type=int, default=1800, help="steps of a run")
    add(
        "--jobs",
        type=int,
        choices=range(1, len(os.sched_getaffinity(0)) + 1),
        default=1,
        help="runs at a time, each on its share of the processors",
    )
    add("--folder", default="runs/quality", help="where the runs are kept")
    add("--json", metavar="FILE", help="write every figure there")
    return parser


def _run(folder: Path, model: str, seed: int, steps: int, places: "Queue[list[int]]") -> Facts:
    """Train and evaluate one model on a free share of the processors, and return what it reached."""
    run = folder / f"{model}-{seed}"
    train = [f"seed={seed}", f"train.steps={steps}", "train.max_minutes=null", f"run_dir={run}"]
    command = [sys.executable, "-m", "nmt.cli.train", "recipe=quickstart", *MODELS[model], *train]
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    processors = places.get()
    with log.open("w") as output:
        done = subprocess.run(
            command, stdout=output, stderr=output, preexec_fn=lambda: os.sched_setaffinity(0, processors)
        )
    places.put(processors)
    if done.returncode:
        sys.exit(f"{model}, seed {seed}: nmt-train ended with status {done.returncode}, see {log}")
    print(f"{model}, seed {seed}: done", flush=True)
    return _facts(run)


def _facts(run: Path) -> Facts:
    """Read the development loss of the last step, and BLEU, from a run that is done."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "dev"][-1]
    (matrix,) = run.glob(f"evaluation/{last['step']}/*/matrix.json")
    results = json.loads(matrix.read_text())["results"]
    parameters = next(line for line in run.with_suffix(".log").read_text().splitlines() if "parameters:" in line)
    return {
        "parameters": parameters.strip(),
        "step": last["step"],
        "dev": last["nll"],
        "minutes": last["seconds"] / 60,
        **{f"dev/{name}": value for name, value in last.items() if name.startswith("nll/")},
        "bleu": {result["direction"]: result["bleu"] for result in results},
    }


def _report(rows: dict[str, Facts], models: Sequence[str]) -> None:
    directions = list(next(iter(rows.values()))["bleu"])
    header = ["model, seed", "dev loss", *directions, "into English", "out of English"]
    table = [[name, *_cells(row, directions)] for name, row in rows.items()]
    for model in models:
        mine = [row for name, row in rows.items() if name.startswith(f"{model}/")]
        mean = {
            "dev": statistics.fmean(row["dev"] for row in mine),
            "bleu": {d: statistics.fmean(row["bleu"][d] for row in mine) for d in directions},
        }
        table.append([f"**{model}**, mean", *_cells(mean, directions)])
    print()
    print_table(header, table)
    print()
    for model in models:
        print(f"{model}: {rows[f'{model}/1']['parameters']}")


def _cells(row: Facts, directions: Sequence[str]) -> list[str]:
    into, out = ([row["bleu"][d] for d in directions if d.endswith("-en") == side] for side in (True, False))
    means = [statistics.fmean(scores) for scores in (into, out)]
    return [f"{row['dev']:.3f}", *(f"{score:.1f}" for score in [*(row["bleu"][d] for d in directions), *means])]


if __name__ == "__main__":
    main()
