"""Reading of a translation memory: units a second and peak memory of our reader beside translate-toolkit's.

    python benchmarks/tmx.py                        # one million units, about 420 MB in the temporary folder
    python benchmarks/tmx.py --units 100000 --peer-units 20000

Each reads the same file in a process of its own and counts the pairs of texts; the extra `bench` has translate-toolkit.
Its reader holds the whole file as a tree: where half of the free memory is too little for it, by `BYTES_A_UNIT`, it
reads a smaller file, and so does ours once more.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import circumstances, positive, print_table

BYTES_A_UNIT = 8_000  # of translate-toolkit's tree, measured with 100,000 units and rounded up
HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en-GB" segtype="sentence" adminlang="en" datatype="html" creationtool="benchmark"
creationtoolversion="1" o-tmf="none"/><body>
"""
UNIT = """<tu tuid="{0}" creationdate="20200101T000000Z"><prop type="x-project">houses</prop>
<tuv xml:lang="en-GB"><seg>The <bpt i="1">&lt;b&gt;</bpt>red<ept i="1">&lt;/b&gt;</ept> door of house {0} is open, \
&amp; its windows are closed</seg></tuv>
<tuv xml:lang="de-DE"><seg>Die <bpt i="1">&lt;b&gt;</bpt>rote<ept i="1">&lt;/b&gt;</ept> Tür von Haus {0} ist offen, \
und die Fenster sind zu</seg></tuv></tu>
"""


def write_memory(path: Path, units: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD)
        for number in range(units):
            file.write(UNIT.format(number))
        file.write("</body></tmx>\n")


def read_ours(path: Path) -> int:
    from nmt.corpora.declare.spec import CorpusSpec
    from nmt.corpora.opening import open_spec

    spec = {
        "name": "memory",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(path.parent)},
        "read": {"kind": "tmx", "files": path.name},
        "split": {"by": "text", "test": 0, "dev": 0},
    }
    with open_spec(CorpusSpec.model_validate(spec)) as reader:
        return sum(1 for row in reader.rows({"de"}) if row.text and row.translations["de"])


def read_translate_toolkit(path: Path) -> int:
    from translate.storage.tmx import tmxfile

    with path.open("rb") as file:
        memory = tmxfile(file, sourcelanguage="en-GB", targetlanguage="de-DE")
    return sum(1 for unit in memory.units if unit.source and unit.target)


READERS: dict[str, Callable[[Path], int]] = {"this toolkit": read_ours, "translate-toolkit": read_translate_toolkit}


def measure_here(name: str, path: Path) -> dict[str, float]:
    """Read the file; return the seconds, the count of pairs, and what memory grew by to its peak, in bytes."""
    small = path.with_name("small.tmx")
    READERS[name](small)  # imports, which are no part of reading
    before, began, busy = peak_memory(), time.perf_counter(), time.process_time()
    pairs = READERS[name](path)
    seconds, busy, peak = time.perf_counter() - began, time.process_time() - busy, peak_memory()
    return {"seconds": seconds, "busy": busy, "pairs": pairs, "peak": peak, "grown": peak - before}


def peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(name: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--reader", name, "--file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def free_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def compare(units: int, peer_units: int) -> None:
    for key, value in circumstances(["translate-toolkit", "lxml"]).items():
        print(f"- {key}: {value}")
    held = max(1, min(peer_units, units, free_memory() // 2 // BYTES_A_UNIT))
    if held < min(peer_units, units):
        print(f"- translate-toolkit reads {held:,} units: more would take over half of the free memory")
    rows, facts = [], {}
    runs = [("this toolkit", units), ("this toolkit", held), ("translate-toolkit", held)]
    with tempfile.TemporaryDirectory(prefix="nmt-tmx-") as folder:
        write_memory(Path(folder) / "small.tmx", 10)
        for name, count in dict.fromkeys(runs):
            path = Path(folder) / f"{count}.tmx"
            if not path.exists():
                write_memory(path, count)
            facts[name] = found = measure(name, path)
            assert found["pairs"] == count, f"{name} read {found['pairs']} of {count} pairs"
            speeds = (count / found["seconds"], count / found["busy"])
            megabytes = (path.stat().st_size / 1e6, found["peak"] / 1e6, found["grown"] / 1e6)
            rows.append([name, f"{count:,}", *(f"{one:,.0f}" for one in (*speeds, *megabytes))])
    print()
    header = ["reader", "units", "units/s", "by processor time", "MB of file", "MB at its peak", "of them by reading"]
    print_table(header, rows)
    ours, theirs = facts["this toolkit"], facts["translate-toolkit"]
    for what, key in (("time", "seconds"), ("processor time", "busy"), ("memory at the peak", "peak")):
        ratio = theirs[key] / max(ours[key], 1e-3)
        print(f"- {held:,} units each: translate-toolkit takes {ratio:.2f} times as much {what} as this toolkit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=positive, default=1_000_000)
    parser.add_argument("--peer-units", type=positive, help="of translate-toolkit at most (default: all)")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        print(json.dumps(measure_here(options.reader, options.file)))
    else:
        compare(options.units, options.peer_units or options.units)


if __name__ == "__main__":
    main()
