"""Training throughput beside Hugging Face `transformers`: tokens/s of models of one shape, in one run, as ratios.

    pip install -e '.[bench]'
    python benchmarks/train_throughput.py

A step is forward, backward and Adam's update, without clipping, on a batch of random tokens without padding, on CPUs.
Ours is the train step of `nmt-train`. Theirs is what is fastest: PyTorch without torch.compile, attention in one
kernel, fused Adam, `torch.autocast` for bf16 (Switch stops under autocast and has bfloat16 parameters instead). On both
sides parameters are float32, and dropout (of embeddings, residuals and hidden units), label smoothing, processors and
the allocator's settings are the same.
"""

import argparse
import importlib.util
import json
import statistics
import sys
from dataclasses import asdict, fields
from pathlib import Path

from harness import (
    Facts,
    Worker,
    circumstances,
    disturbance,
    measure,
    positive,
    print_table,
    quartiles,
    started,
    worker_environment,
)
from train_worker import SYSTEMS, Shape

from nmt.cli.shell import merged_tunables

DEFAULT = ["nmt-dense", "nmt-moe8", "nmt-moe32", "hf-m2m100", "hf-m2m100-wide", "hf-marian", "hf-nllb-moe8"]
PRECISIONS = ["fp32", "bf16"]
HF_DENSE = ["hf-m2m100", "hf-marian"]
HF_WIDE = ["hf-m2m100-wide", "hf-marian-wide"]
# What is compared with the fastest of what.
COMPARISONS = {
    "nmt-dense": [HF_DENSE],
    "nmt-dense-wide": [HF_WIDE],
    "nmt-moe8": [HF_WIDE, ["hf-nllb-moe8"], ["nmt-dense-wide"], ["nmt-dense"]],
    "nmt-moe32": [HF_WIDE, ["hf-nllb-moe32"], ["nmt-dense-wide"], ["nmt-dense"]],
    "hf-nllb-moe8": [HF_WIDE],
    "hf-nllb-moe32": [HF_WIDE],
}
PACKAGES = ["nmt-moe", "jax", "jaxlib", "flax", "numpy", "torch", "transformers"]


def main() -> None:
    arguments = _parser().parse_args()
    theirs = any(name.startswith("hf-") for name in arguments.systems)
    missing = [package for package in ("torch", "transformers") if theirs and not importlib.util.find_spec(package)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; pip install -e '.[bench]'")
    about = circumstances(PACKAGES)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    shape = Shape(**{field.name: getattr(arguments, field.name) for field in fields(Shape)})
    pages = ["on", "off"] if arguments.huge_pages == "both" else [arguments.huge_pages]
    groups = [_run(arguments, shape, precision, setting) for setting in pages for precision in arguments.precision]
    if arguments.json:
        content = {**about, "shape": asdict(shape), "groups": groups}
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n")
    sys.exit(1 if any(group["failed"] for group in groups) else 0)


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME", help=f"among {' '.join(SYSTEMS)}")
    add("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="input type of matrix products")
    add("--huge-pages", choices=["on", "off", "both"], default="on", help="whether malloc uses them, as in nmt-train")
    add("--rounds", type=positive, default=15, help="timed steps of every system")
    add("--warmup", type=positive, default=3, help="untimed steps of every system after its first")
    add("--json", metavar="FILE", help="write every figure there")
    for field in fields(Shape):
        number = float if isinstance(field.default, float) else positive
        add(f"--{field.name.replace('_', '-')}", type=number, default=field.default, help="shape, for all systems")
    return parser


def _run(arguments: argparse.Namespace, shape: Shape, precision: str, pages: str) -> Facts:
    """Measure all systems in one precision, print their table and return its figures."""
    batch = f"{shape.rows} x ({shape.source_length} + {shape.target_length}) tokens"
    print(f"\n## {precision}, huge pages {pages}: {batch} a step, {arguments.rounds} rounds\n", flush=True)
    commands = {}
    for name in arguments.systems:
        job = {"system": name, "precision": precision, "warmup": arguments.warmup, "shape": asdict(shape)}
        commands[name] = [sys.executable, str(Path(__file__).with_name("train_worker.py")), json.dumps(job)]
    with started(commands, worker_environment(merged_tunables("") if pages == "on" else None)) as (workers, failed):
        if workers:
            measure(workers, arguments.rounds)
        rows = {worker.name: _figures(worker, shape) for worker in workers}
    ratios = _compare(rows)
    _report(rows, ratios, disturbance(workers))
    return {"precision": precision, "huge_pages": pages, "systems": rows, "ratios": ratios, "failed": failed}


def _figures(worker: Worker, shape: Shape) -> Facts:
    median = statistics.median(worker.seconds)
    return {
        **worker.facts,
        "median_seconds": median,
        "tokens_per_second": shape.tokens / median,
        "peak_bytes": worker.steps[-1]["peak"],
        "first_step_seconds": worker.first_step,
        "seconds": worker.seconds,
        "busy_seconds": [step["busy"] for step in worker.steps],
        "other_seconds": [step["others"] for step in worker.steps],
    }


def _compare(rows: dict[str, Facts]) -> list[Facts]:
    """Return how many times as fast our systems are as the fastest peers: quartiles over rounds, and of the medians."""
    ratios = []
    for name, rivals in COMPARISONS.items():
        for candidates in rivals:
            present = [candidate for candidate in candidates if candidate in rows]
            if name not in rows or not present:
                continue
            peer = min(present, key=lambda candidate: rows[candidate]["median_seconds"])
            pairs = zip(rows[peer]["seconds"], rows[name]["seconds"], strict=True)
            low, _, high = quartiles([theirs / ours for theirs, ours in pairs])
            ratio = rows[peer]["median_seconds"] / rows[name]["median_seconds"]
            ratios.append({"system": name, "peer": peer, "ratio": ratio, "low": low, "high": high})
    return ratios


def _report(rows: dict[str, Facts], ratios: list[Facts], warning: str) -> None:
    if not rows:
        return
    dense = [row["median_seconds"] for name, row in rows.items() if name in HF_DENSE]
    base = min(dense, default=None)
    header = ["system", "parameters", "s/step", "min..max", "tokens/s", "x best HF dense", "peak MiB", "first step, s"]
    table = [
        [
            name,
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['median_seconds']:.3f}",
            f"{min(row['seconds']):.3f}..{max(row['seconds']):.3f}",
            f"{row['tokens_per_second']:,.0f}",
            "-" if base is None else f"{base / row['median_seconds']:.2f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
            f"{row['first_step_seconds']:.1f}",
        ]
        for name, row in rows.items()
    ]
    print_table(header, table)
    print()
    if warning:
        print(warning)
    for ratio in ratios:
        spread = f"middle half of rounds {ratio['low']:.2f}..{ratio['high']:.2f}"
        print(f"- {ratio['system']} trains {ratio['ratio']:.2f} x as fast as {ratio['peer']} ({spread})", flush=True)


if __name__ == "__main__":
    main()
