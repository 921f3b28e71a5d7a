"""Decoding beside CTranslate2: tokens a second, latency and memory of both, in one run, as ratios.

    pip install -e . ctranslate2==4.8.5
    python benchmarks/decode_peers.py

Random weights of a pre-norm Transformer, width 512, hidden 2,048, 6 + 6 layers, 32,000 tokens; sentences of 5 to 60
random tokens; translations as long as their sources (see `decode_worker.py`). Ratios are ours to theirs: of tokens a
second, more is better for us; of peak memory, less. CTranslate2 may have an interpreter of its own (`--peer-python`).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from harness import (
    Worker,
    circumstances,
    disturbance,
    measured,
    positive,
    print_table,
    quartiles,
    worker_environment,
)

WORKS = {  # name: arguments of the worker
    "256 sentences, beam 4": ["--sentences", "256", "--beam", "4"],
    "64 sentences, beam 4": ["--sentences", "64", "--beam", "4"],
    "64 sentences, beam 1": ["--sentences", "64", "--beam", "1"],
    "one at a time, beam 4": ["--sentences", "16", "--beam", "4", "--alone"],
}
# Our precision, the peer's, and how many times as fast we are to be at each work.
PAIRS = {
    ("float32", "float32"): (1.2, 1.2, 1.2, 1.0),
    ("bfloat16", "int8"): (1.0, 1.0, 0.8, 1.5),
    ("int8", "int8"): (1.0, 1.0, 0.8, 1.5),
}
LAYERS = {"6+6": [], "6+2": ["--decoder-layers", "2"]}


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(["nmt-moe", "jax", "jaxlib", "flax", "numpy"])
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    rows, report = [], []
    for layers in arguments.layers:
        for work in arguments.work:
            for pair in arguments.pairs:
                row, facts = _compare(arguments, layers, list(WORKS)[work], tuple(pair.split(":")))
                rows.append(row)
                report.append(facts)
    print_table(
        ["layers", "work", "ours", "theirs", "tokens/s", "theirs", "ratio", "target", "latency ms", "theirs", "memory"],
        rows,
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"about": about, "rows": report}, indent=1))


def _compare(
    arguments: argparse.Namespace, layers: str, work: str, pair: tuple[str, ...]
) -> tuple[list[str], dict[str, object]]:
    ours, theirs = pair
    common = [*WORKS[work], *LAYERS[layers], "--threads", str(arguments.threads)]
    file = str(Path(__file__).with_name("decode_worker.py"))
    commands = {
        "nmt": [sys.executable, file, "--system", "nmt", "--precision", ours, *common],
        "ctranslate2": [arguments.peer_python, file, "--system", "ctranslate2", "--precision", theirs, *common],
    }
    workers, failed = measured(commands, worker_environment(None), arguments.rounds)
    if failed:
        sys.exit("\n".join(failed.values()))
    speeds = [[step["tokens"] / step["seconds"] for step in worker.steps] for worker in workers]
    ratio = statistics.median(a / b for a, b in zip(*speeds, strict=True))
    latencies = [_latency(worker) for worker in workers]
    peaks = [max(step["peak"] for step in worker.steps) / 2**20 for worker in workers]
    target = PAIRS.get((ours, theirs), (None,) * 4)[list(WORKS).index(work)]
    if note := disturbance(workers):
        print(note, flush=True)
    row = [layers, work, ours, theirs, *(f"{statistics.median(speed):.0f}" for speed in speeds)]
    row += [
        f"{ratio:.2f}",
        str(target or "-"),
        *latencies,
        f"{peaks[0]:.0f} / {peaks[1]:.0f} MiB, {peaks[0] / peaks[1]:.2f}",
    ]
    print(*row, sep="  ", flush=True)
    facts = {"row": row, "speeds": {w.name: quartiles(s) for w, s in zip(workers, speeds, strict=True)}}
    return row, facts


def _latency(worker: Worker) -> str:
    """Return the median and the 95th percentile of a sentence's milliseconds, or a dash for batches."""
    seconds = sorted(second for step in worker.steps for second in step.get("latency", []))
    if not seconds:
        return "-"
    return f"{1e3 * statistics.median(seconds):.0f}, p95 {1e3 * seconds[int(0.95 * len(seconds))]:.0f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=["6+6"])
    parser.add_argument("--work", nargs="+", type=int, choices=range(len(WORKS)), default=list(range(len(WORKS))))
    parser.add_argument("--pairs", nargs="+", default=["float32:float32"], help="our precision:theirs")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has ctranslate2")
    parser.add_argument("--json", help="write the figures here")
    return parser


if __name__ == "__main__":
    main()
