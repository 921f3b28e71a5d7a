"""Decoding with mixtures of experts beside Hugging Face's NllbMoe, and beside a dense model of ours, in one run.

    pip install -e '.[bench]'
    python benchmarks/decode_moe.py

Random weights of width 512, hidden 2,048, 6 + 6 layers, 32,000 tokens, experts in every second layer, two a token; beam
4, no token dropped on either side. The dense model does the same arithmetic for a token. `decode_moe_worker.py` says
how long translations are. `--peer-python` names an interpreter with `transformers` 4.57, whose `generate` is measured.
bfloat16 is slow on processors that do not multiply it; the machine's line says which instructions it has.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from decode_moe_worker import Decoding
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

from nmt.cli.shell import merged_tunables

WORKS = {"32 sentences": {"sentences": 32}, "one at a time": {"sentences": 6, "alone": True}}
TARGETS = {"float32": 2.5}  # times as fast as theirs in float32
BEST_TARGET = 4.0  # in a smaller precision
DENSE_TARGET = 1.4  # times the dense model's time
HEADER = ["experts", "work", "ours", "theirs", "tokens/s", "theirs", "x as fast", "quartiles", "target"]
HEADER += ["dense", "x dense time", "target", "peak MiB: ours, theirs, dense"]


def main() -> None:
    arguments = _parser().parse_args()
    about = circumstances(["nmt-moe", "jax", "jaxlib", "flax", "numpy"])
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    found = [
        _compare(arguments, experts, list(WORKS)[work], *pair.split(":"))
        for pair in arguments.pairs
        for work in arguments.work
        for experts in arguments.experts
    ]
    print_table(HEADER, [facts["row"] for facts in found])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**about, "rows": found}, indent=1) + "\n")


def _compare(arguments: argparse.Namespace, experts: int, work: str, precision: str, theirs: str) -> Facts:
    """Measure our sparse model, theirs, and our dense one at a work, and return the figures."""
    jobs = {
        "sparse": Decoding("nmt", experts, precision, **WORKS[work]),
        "peer": Decoding("nllb-moe", experts, theirs, **WORKS[work]),
        "dense": Decoding("nmt", 0, precision, **WORKS[work]),
    }
    file = str(Path(__file__).with_name("decode_moe_worker.py"))
    python = {"peer": arguments.peer_python}
    commands = {name: [python.get(name, sys.executable), file, json.dumps(asdict(job))] for name, job in jobs.items()}
    workers, failed = measured(commands, worker_environment(merged_tunables("")), arguments.rounds)
    if failed:
        sys.exit(1)
    sparse, peer, dense = workers
    low, middle, high = ratios(peer.seconds, sparse.seconds)
    to_dense = quartiles([one / other for one, other in zip(sparse.seconds, dense.seconds, strict=True)])[1]
    row = [str(experts), work, precision, theirs, *(f"{_speed(worker):.0f}" for worker in (sparse, peer))]
    row += [f"{middle:.2f}", f"{low:.2f}..{high:.2f}", f"{TARGETS.get(precision, BEST_TARGET):.1f}"]
    row += [f"{_speed(dense):.0f}", f"{to_dense:.2f}", f"{DENSE_TARGET:.1f}"]
    row += [", ".join(f"{worker.steps[-1]['peak'] / 2**20:,.0f}" for worker in workers)]
    print(*row, sep="  ", flush=True)
    if warning := disturbance(workers):
        print(warning, flush=True)
    systems = {worker.name: {**worker.facts, "steps": worker.steps} for worker in workers}
    return {"row": row, "times_as_fast": [low, middle, high], "to_dense": to_dense, "systems": systems}


def _speed(worker: Worker) -> float:
    """Return the tokens a second of the median step."""
    return float(worker.steps[0]["tokens"] / statistics.median(worker.seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--experts", nargs="+", type=positive, default=[16, 64], help="of the sparse models")
    add("--work", nargs="+", type=int, choices=range(len(WORKS)), default=[0, 1], help=", ".join(WORKS))
    pairs = ["float32:float32", "bfloat16:float32"]
    add("--pairs", nargs="+", default=pairs, help="our precision, and theirs")
    add("--peer-python", default=sys.executable, help="an interpreter that has torch and transformers")
    add("--rounds", type=positive, default=3, help="timed steps of every system")
    add("--json", metavar="FILE", help="write every figure there")
    return parser


if __name__ == "__main__":
    main()
