"""Mixture of experts beside Hugging Face `transformers`: a training step and a forward pass, in one run, as ratios.

    pip install -e '.[bench]'
    python benchmarks/moe_peers.py

Like with like: their NllbMoe beside our preset `nllb` (top-2, all second choices, 2N/E slots in training), their Switch
beside our preset `switch` (top-1), both with experts in every second layer; and a dense model of width 512 in bf16
beside M2M100. A forward pass is the loss without gradients, dropout or dropped tokens. Theirs is PyTorch without
torch.compile, fused Adam, `torch.autocast` for bf16 (Switch: bfloat16 parameters, its code stops under autocast).
"""

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict
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
from train_worker import LARGE, Shape

from nmt.cli.shell import merged_tunables

# Ours, theirs, and how many times as fast our training step is to be in fp32.
SPARSE = {
    "nmt-nllb8": ("hf-nllb-moe8", None),
    "nmt-nllb32": ("hf-nllb-moe32", 6.0),
    "nmt-switch8": ("hf-switch8", None),
    "nmt-switch32": ("hf-switch32", 1.3),
}
DENSE = {"nmt-dense": ("hf-m2m100", 1.0)}
SMALL = Shape()
BASE = Shape(width=512, hidden=2048, heads=8, layers=6, vocabulary=16000)
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax", "numpy", "torch", "transformers"]


def main() -> None:
    arguments = _parser().parse_args()
    if missing := [package for package in ("torch", "transformers") if not importlib.util.find_spec(package)]:
        sys.exit(f"not installed: {', '.join(missing)}; pip install -e '.[bench]'")
    about = circumstances(PACKAGES, arguments.device)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    pages = ["on", "off"] if arguments.huge_pages == "both" else [arguments.huge_pages]
    groups = []
    for setting in pages:
        if "sparse" in arguments.models:
            pairs = {mine: rest for mine, rest in SPARSE.items() if experts_of(mine) in arguments.experts}
            small = LARGE if arguments.device == "gpu" else SMALL
            groups += [_run(arguments, small, pairs, precision, setting) for precision in arguments.precision]
        if "dense" in arguments.models:
            groups.append(_run(arguments, LARGE if arguments.device == "gpu" else BASE, DENSE, "bf16", setting))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**about, "groups": groups}, indent=1) + "\n")
    sys.exit(1 if any(group["failed"] for group in groups) else 0)


def experts_of(system: str) -> int:
    """Return the number of experts in the name of a sparse system."""
    return int("".join(filter(str.isdigit, system)))


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    models = ["sparse", "dense"]
    add("--models", nargs="+", choices=models, default=models, help="sparse: width 256; dense: width 512, in bf16 only")
    add("--experts", nargs="+", type=int, choices=[8, 32], default=[8, 32], help="of the sparse models")
    add("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="of the sparse models")
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where; on a GPU all models are of width 1024")
    add("--huge-pages", choices=["on", "off", "both"], default="both", help="whether malloc uses them, on both sides")
    add("--rounds", type=positive, default=3, help="timed steps of every system")
    add("--warmup", type=positive, default=1, help="untimed steps of every system after its first")
    add("--json", metavar="FILE", help="write every figure there")
    return parser


def _run(
    arguments: argparse.Namespace,
    shape: Shape,
    pairs: dict[str, tuple[str, float | None]],
    precision: str,
    pages: str,
) -> Facts:
    """Measure pairs of systems in one precision, print their table and return its figures."""
    batch = f"{shape.rows} x ({shape.source_length} + {shape.target_length}) tokens"
    print(
        f"\n## width {shape.width}, {precision}, huge pages {pages}: {batch}, {arguments.rounds} rounds\n", flush=True
    )
    commands = {}
    for name in [system for mine, (theirs, _) in pairs.items() for system in (mine, theirs)]:
        job = {"system": name, "precision": precision, "warmup": arguments.warmup, "shape": asdict(shape)}
        job |= {"mode": "forward"}
        commands[name] = [sys.executable, str(Path(__file__).with_name("train_worker.py")), json.dumps(job)]
    environment = worker_environment(merged_tunables("") if pages == "on" else None, arguments.device)
    # A GPU has no drift that would have to hit all alike, and its memory is not enough for all.
    workers, failed = measured(commands, environment, arguments.rounds, together=arguments.device == "cpu")
    by_name = {worker.name: worker for worker in workers}
    compared = [
        _compare(by_name[mine], by_name[theirs], target if precision == "fp32" or pairs is DENSE else None)
        for mine, (theirs, target) in pairs.items()
        if mine in by_name and theirs in by_name
    ]
    _report(compared, disturbance(workers))
    about = {"precision": precision, "huge_pages": pages, "shape": asdict(shape)}
    systems = {worker.name: {**worker.facts, "steps": worker.steps} for worker in workers}
    return about | {"compared": compared, "systems": systems, "failed": failed}


def _compare(ours: Worker, theirs: Worker, target: float | None) -> Facts:
    """Return how many times as fast ours is, as quartiles over rounds, for each kind of step."""
    facts: Facts = {"ours": ours.name, "theirs": theirs.name, "target": target}
    flops, peak = (ours.facts[name] for name in ("flops", "peak_flops"))
    for kind in ("step", "forward"):
        mine, its = ([step[kind] for step in worker.steps] for worker in (ours, theirs))
        facts[kind] = {
            "ours": quartiles(mine)[1],
            "theirs": quartiles(its)[1],
            "times_as_fast": ratios(its, mine),
            "mfu": [flops / peak / quartiles(steps)[1] for steps in (mine, its)] if peak and kind == "step" else None,
            "processors": min(step[f"{kind}_busy"] for step in theirs.steps)
            / min(step[f"{kind}_busy"] for step in ours.steps),
        }
    return facts | {"peak_bytes": [worker.steps[-1]["peak"] for worker in (ours, theirs)]}


def _report(compared: list[Facts], warning: str) -> None:
    header = [
        "ours",
        "theirs",
        "",
        "ours, s",
        "theirs, s",
        "x as fast",
        "quartiles",
        "at least",
        "x CPU time",
        "peak MiB",
        "MFU",
    ]
    table = []
    for facts in compared:
        for kind in ("step", "forward"):
            row = facts[kind]
            low, middle, high = row["times_as_fast"]
            table.append(
                [
                    facts["ours"],
                    facts["theirs"],
                    kind,
                    f"{row['ours']:.4g}",
                    f"{row['theirs']:.4g}",
                    f"{middle:.2f}",
                    f"{low:.2f}..{high:.2f}",
                    f"{facts['target']:.1f}" if facts["target"] and kind == "step" else "-",
                    f"{row['processors']:.2f}",
                    " : ".join(f"{peak / 2**20:,.0f}" for peak in facts["peak_bytes"]) if kind == "step" else "",
                    " : ".join(f"{share:.1%}" for share in row["mfu"] or ()),
                ]
            )
    print_table(header, table)
    if warning:
        print(f"\n{warning}")


if __name__ == "__main__":
    main()
