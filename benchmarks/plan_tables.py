"""The tables of planning: GShard's models on their own cores, compile time, O(1) in experts, smallest slices.

    python -m benchmarks.plan_tables models         # all m4 recipes on the paper's topologies
    python -m benchmarks.plan_tables partitions     # compile time for 16 to 2048 devices at fixed work per device
    python -m benchmarks.plan_tables layers         # compile time for 6, 12, 36 and 60 layers
    python -m benchmarks.plan_tables experts        # memory and FLOPs per device from 128 to 2048 experts
    python -m benchmarks.plan_tables slices         # the smallest slice of each kind on which m4_600b fits
    python -m benchmarks.plan_tables show           # the tables of what was planned, as Markdown

Each row is one `nmt-plan` in a process of its own. Rows are appended to plan_tables.jsonl (`--file`), and those that
are there are not planned again. Needs: pip install -e '.[tpu]'.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

GIB = 2**30
COLUMNS = (
    "topology",
    "devices",
    "fits",
    "peak GiB",
    "temporaries GiB",
    "TFLOP/device",
    "all-to-all a layer",
    "steps/s",
    "paper",
    "days",
    "paper",
    "compile s",
    "host GiB",
)


class Row(NamedTuple):
    table: str
    name: str
    recipe: str
    topology: str
    arguments: tuple[str, ...] = ()


MODELS = (
    ("m4_600b", "v3:32x32"),
    ("m4_200b", "v3:32x32"),
    ("m4_150b", "v3:16x16"),
    ("m4_50b", "v3:16x16"),
    ("m4_37b", "v3:8x8"),
    ("m4_12b", "v3:8x8"),
    ("m4_1t", "v3:32x32"),
    ("m4_dense", "v3:32x32"),
)
# Devices and the slice of v3 that has them: chips are half as many.
DEVICES = ((16, "v3:2x4"), (128, "v3:8x8"), (512, "v3:16x16"), (2048, "v3:32x32"))
TOKENS = 2048  # source tokens on each device, as in m4_600b
LAYERS = (6, 12, 36, 60)
EXPERTS = ((128, "v3:8x8"), (512, "v3:16x16"), (2048, "v3:32x32"))
# Slices by size, smallest first; the 2048 experts have to divide among the devices.
SLICES = {
    "v4": ("4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
    "v5p": ("4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
    "v5e": ("16x16", "16x16*2", "16x16*4", "16x16*8"),
    "v6e": ("8x16", "16x16", "16x16*2", "16x16*4", "16x16*8"),
    "tpu7x": ("2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
}


def scaled(devices: int, *more: str) -> tuple[str, ...]:
    """Return arguments that give every device the same work: its share of tokens, one expert of every sparse layer."""
    return (f"model.moe.experts={devices}", f"train.tokens_per_batch={TOKENS * devices}", *more)


def rows(table: str) -> Iterator[Row]:
    if table == "models":
        for recipe, topology in MODELS:
            yield Row(table, recipe, recipe, topology)
    if table == "partitions":
        for devices, topology in DEVICES:
            yield Row(table, f"{devices}", "m4_600b", topology, scaled(devices))
    if table == "layers":
        for layers in LAYERS:
            half = (f"model.encoder_layers={layers // 2}", f"model.decoder_layers={layers // 2}")
            # Bfloat16 weights, without which 60 layers do not fit; the program is the same for all.
            yield Row(table, f"{layers}", "m4_1t", "v3:32x32", half)
    if table == "experts":
        for experts, topology in EXPERTS:
            yield Row(table, f"{experts}", "m4_600b", topology, scaled(experts))


def plan(row: Row) -> dict[str, Any]:
    command = [sys.executable, "-m", "nmt.cli.plan", f"recipe={row.recipe}", f"topology={row.topology}"]
    began = time.monotonic()
    done = subprocess.run([*command, *row.arguments, "--json", "-"], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        return row._asdict() | {"error": done.stderr.strip().splitlines()[-1:], "seconds": time.monotonic() - began}
    found = json.loads(done.stdout)
    for name in ("collective_list", "notes"):
        found.pop(name, None)
    return row._asdict() | {"plan": found, "seconds": time.monotonic() - began}


def run(file: Path, wanted: Iterable[Row]) -> None:
    for row in wanted:
        known(file, row)


def known(file: Path, row: Row) -> dict[str, Any]:
    """Return the result of a row, planned now if it is not in the file."""
    for result in results(file):
        if (result["table"], result["name"], result["topology"]) == (*row[:2], row.topology) and "plan" in result:
            return result
    print(f"{row.table} {row.name} on {row.topology} ...", file=sys.stderr, flush=True)
    result = plan(row)
    with file.open("a") as out:
        out.write(json.dumps(result) + "\n")
    return result


def results(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def smallest(file: Path) -> None:
    """Plan slices of each kind, smallest first, up to the first one that fits."""
    for kind, sizes in SLICES.items():
        for size in sizes:
            more = ("mesh.preset=multislice",) if "*" in size else ()
            result = known(file, Row("slices", f"{kind}:{size}", "m4_600b", f"{kind}:{size}", more))
            if result.get("plan", {}).get("fits"):
                break


def show(file: Path) -> None:
    tables: dict[str, list[dict[str, Any]]] = {}
    for result in results(file):
        tables.setdefault(result["table"], []).append(result)
    for table, found in tables.items():
        print(f"\n### {table}\n")
        print(f"| | {' | '.join(COLUMNS)} |")
        print("|---" * 14 + "|")
        for result in found:
            print(line(result))


def line(result: dict[str, Any]) -> str:
    plan = result.get("plan")
    if plan is None:
        return f"| {result['name']} | {result['topology']} | {result.get('error')} |"
    head = [result["name"], result["topology"], f"{plan['devices']:,}"]
    if not plan["fits"]:
        too_much = (plan["needed_bytes"] - plan["available_bytes"]) / GIB
        return "| " + " | ".join([*head, f"no, {too_much:.2f} GiB too much"]) + " |"
    memory, time_, paper = plan["memory"], plan.get("roofline", {}), plan.get("paper", {})
    slow, fast = time_.get("step_seconds_at_most"), time_.get("step_seconds_at_least")
    steps = f"{1 / slow:.2f} to {1 / fast:.2f}" if slow and fast else ""
    days = f"{time_['days_to_1e12_tokens']:.1f} to {time_['days_to_1e12_tokens'] * fast / slow:.1f}" if steps else ""
    cells = [
        *head,
        "yes",
        f"{memory['peak'] / GIB:.2f}",
        f"{memory['temporaries'] / GIB:.2f}",
        f"{plan['flops_per_device'] / 1e12:.1f}",
        f"{sum(plan['all_to_all_per_sparse_layer'].values()):g}",
        steps,
        str(paper.get("steps_per_second") or ""),
        days,
        str(paper.get("days") or ""),
        f"{plan['compile_seconds']:.0f}",
        f"{plan['host_peak_bytes'] / GIB:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("models", "partitions", "layers", "experts", "slices", "all", "show"))
    parser.add_argument("--file", type=Path, default=Path("plan_tables.jsonl"))
    given = parser.parse_args()
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    wanted = ("models", "partitions", "layers", "experts") if given.table == "all" else (given.table,)
    for table in wanted:
        run(given.file, rows(table))
    if given.table in ("slices", "all"):
        smallest(given.file)
    show(given.file)


if __name__ == "__main__":
    main()
