"""What experts cost: training time and memory as their number grows, at the same tokens and the same active FLOPs.

    python benchmarks/moe_scaling.py

GShard's claim: parameters grow with the experts, the work of a token does not. E = 1 is a dense model whose
feed-forward layers are 1.5 times as wide, the arithmetic of a sparse model in which every token goes to K = 2 experts
in every second layer. Forward and backward are one jitted function, Adam's update another: on this one device the
update has all experts' state to go through; over a pod it is spread with the experts.

Evaluation is the loss without gradients and without capacity, as in translation: nothing is dropped. What it costs
beside the fewest experts says whether that needs work for every expert.

With slots (scatter, einsum) the capacity factor is 2.0, GShard's: experts have 2N rows together, as many as the dense
model computes, filled or not. Grouped has no slots and computes what was chosen, in blocks; so that it is 2N rows too,
all second choices are taken (second_expert=all) in every system here.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, replace
from pathlib import Path

from harness import (
    Facts,
    Worker,
    circumstances,
    disturbance,
    measured,
    positive,
    print_table,
    quartiles,
    ratios,
    worker_environment,
)
from train_worker import LARGE, Shape, System

from nmt.cli.shell import merged_tunables

LENGTH = 32  # of source and target rows
TARGETS = {8: 1.06, 32: 1.15, 128: 1.4}  # most times the dense model's forward and backward
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax", "numpy"]
NOTES = [
    "E = 1 is dense, feed-forward layers 1.5 x as wide: the active FLOPs of K = 2 experts in every second layer",
    "capacity factor 2.0, all second choices taken: experts compute 2N rows, as the dense model does",
    "the optimizer updates all experts here; on a pod this is spread over the devices as the experts are",
]


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(PACKAGES, arguments.device)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    print(*(f"note: {note}" for note in NOTES), sep="\n", flush=True)
    shape = LARGE if arguments.device == "gpu" else Shape(source_length=LENGTH, target_length=LENGTH)
    row = shape.source_length + shape.target_length
    if arguments.tokens % row:
        sys.exit(f"--tokens {arguments.tokens} is not a multiple of {row}, a row of source and one of target")
    shape = replace(shape, rows=arguments.tokens // row)
    groups = [_run(arguments, shape, precision) for precision in arguments.precision]
    if arguments.json:
        content = {**about, "notes": NOTES, "shape": asdict(shape), "groups": groups}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(1 if any(group["failed"] for group in groups) else 0)


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--experts", nargs="+", type=positive, default=[8, 32, 128], help="experts of the sparse models; 1 is added")
    add("--dispatch", nargs="+", choices=["scatter", "grouped", "einsum"], default=["scatter"], help="of each of them")
    add("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="input type of products")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where; on a GPU models are wider, and MFU is told")
    add("--tokens", type=positive, default=16384, help="source and target tokens of a step")
    add("--huge-pages", choices=["on", "off"], default="on", help="whether malloc uses them, as in nmt-train")
    add("--rounds", type=positive, default=7, help="timed steps of every system")
    add("--warmup", type=positive, default=1, help="untimed steps of every system after its first")
    add("--json", metavar="FILE", help="write every figure there")
    return parser


def _systems(arguments: argparse.Namespace) -> dict[str, System]:
    sparse = {
        f"E = {experts}, {dispatch}": System("nmt", experts=experts, dispatch=dispatch, all_choices=True)
        for experts in arguments.experts
        if experts > 1
        for dispatch in arguments.dispatch
    }
    return {"E = 1 (dense)": System("nmt", wide=True)} | sparse


def _run(arguments: argparse.Namespace, shape: Shape, precision: str) -> Facts:
    """Measure all systems in one precision, print their table and return its figures."""
    pages = arguments.huge_pages
    print(
        f"\n## {precision}, huge pages {pages}: {shape.tokens} tokens a step, {arguments.rounds} rounds\n", flush=True
    )
    systems, commands = _systems(arguments), {}
    for name, system in systems.items():
        job = {"system": name, "definition": asdict(system), "precision": precision, "warmup": arguments.warmup}
        job |= {"shape": asdict(shape), "mode": "parts"}
        commands[name] = [sys.executable, str(Path(__file__).with_name("train_worker.py")), json.dumps(job)]
    environment = worker_environment(merged_tunables("") if pages == "on" else None, arguments.device)
    # A GPU has no drift that would have to hit all alike, and its memory is not enough for all.
    workers, failed = measured(commands, environment, arguments.rounds, together=arguments.device == "cpu")
    dense = next((worker for worker in workers if not systems[worker.name].experts), None)
    sparse = [worker for worker in workers if systems[worker.name].experts]
    few = min(sparse, key=lambda worker: systems[worker.name].experts, default=None)
    rows = {worker.name: _figures(worker, systems[worker.name], dense, few) for worker in workers if dense}
    _report(rows, disturbance(workers))
    return {"precision": precision, "huge_pages": pages, "systems": rows, "failed": failed}


def _figures(worker: Worker, system: System, dense: Worker, few: Worker | None) -> Facts:
    """Return the figures of a system; its forward and backward as quartiles of times the dense model's, its evaluation
    of times that of the fewest experts."""
    gradient, base = ([step["gradient"] for step in one.steps] for one in (worker, dense))
    evaluation, least = ([step["evaluation"] for step in one.steps] for one in (worker, few or worker))
    return {
        **worker.facts,
        "experts": max(system.experts, 1),
        "dispatch": system.dispatch if system.experts else None,
        "times_dense": ratios(gradient, base),
        "times_dense_of_medians": statistics.median(gradient) / statistics.median(base),
        "times_dense_processors": min(step["gradient_busy"] for step in worker.steps)
        / min(step["gradient_busy"] for step in dense.steps),
        "gradient_seconds": gradient,
        "evaluation_seconds": evaluation,
        "evaluation_times_few": ratios(evaluation, least) if system.experts else None,
        "optimizer_seconds": [step["optimizer"] for step in worker.steps],
        "mfu": worker.facts["flops"] / worker.facts["peak_flops"] / quartiles(gradient)[1]
        if worker.facts["peak_flops"]
        else None,
        "peak_bytes": worker.steps[-1]["peak"],
        "first_step_seconds": worker.first_step,
        "other_seconds": [step["others"] for step in worker.steps],
    }


def _report(rows: dict[str, Facts], warning: str) -> None:
    header = ["system", "parameters", "fwd+bwd, s", "quartiles", "x dense", "quartiles", "of medians", "at most"]
    header += ["x CPU time"]
    table = []
    for name, row in rows.items():
        low, middle, high = quartiles(row["gradient_seconds"])
        least, ratio, most = row["times_dense"]
        table.append(
            [
                name,
                f"{row['parameters'] / 1e6:.1f} M",
                f"{middle:.4g}",
                f"{low:.4g}..{high:.4g}",
                f"{ratio:.2f}",
                f"{least:.2f}..{most:.2f}",
                f"{row['times_dense_of_medians']:.2f}",
                f"{TARGETS[row['experts']]:.2f}" if row["experts"] in TARGETS else "-",
                f"{row['times_dense_processors']:.2f}",
            ]
        )
        times_few = row["evaluation_times_few"]
        table[-1] += [
            f"{statistics.median(row['evaluation_seconds']):.3g}",
            f"{times_few[1]:.2f}" if times_few else "-",
            f"{statistics.median(row['optimizer_seconds']):.3g}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['mfu']:.1%}" if row["mfu"] else "-",
        ]
    header += ["evaluation, s", "x fewest experts", "optimizer, s", "peak MiB", "MFU of fwd+bwd"]
    print_table(header, table)
    if warning:
        print(f"\n{warning}")


if __name__ == "__main__":
    main()
