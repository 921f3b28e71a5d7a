"""Time and memory of reading an export of Tatoeba's size, made up: sentences of 16 languages and links between them.

    python benchmarks/tatoeba.py

Every sentence is linked to two others, in both directions. Printed are the seconds of opening (which looks for the
languages) and of reading all German-English pairs, and all pairs there are, with the largest resident memory.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from harness import circumstances, positive, print_table

from nmt.corpora import open_corpus

CODES = [
    "deu",
    "eng",
    "fra",
    "spa",
    "ita",
    "rus",
    "tur",
    "epo",
    "por",
    "jpn",
    "hun",
    "heb",
    "ukr",
    "nld",
    "fin",
    "pol",
    "ces",
    "swe",
    "ell",
    "dan",
]
DECLARATION = """
name: toy
licence: CC0-1.0
obtain: {{kind: files, folder: "{folder}"}}
read: {{kind: tatoeba, files: sentences.csv, links: links.csv}}
split: {{by: text, test: 0, dev: 0}}
"""


def write_export(folder: Path, sentences: int) -> None:
    """Write sentences.csv, links.csv (sorted, as Tatoeba's) and a declaration."""
    generator = random.Random(1)
    words = [f"word{number}" for number in range(1000)]
    linked: list[tuple[int, int]] = []
    with (folder / "sentences.csv").open("w") as file:
        for number in range(1, sentences + 1):
            file.write(f"{number}\t{generator.choice(CODES)}\t{number} {' '.join(generator.choices(words, k=6))}\n")
            linked += [(number, generator.randint(1, sentences)) for _ in range(2)]
    both = sorted(linked + [(other, one) for one, other in linked])
    with (folder / "links.csv").open("w") as file:
        file.writelines(f"{one}\t{other}\n" for one, other in both)
    (folder / "toy.yaml").write_text(DECLARATION.format(folder=folder))


def read_export(folder: Path, languages: str) -> tuple[float, float, int, float, float]:
    """Read an export; return seconds to open and to read it, pairs, processor seconds, and MiB at the peak."""
    started, cpu = time.perf_counter(), time.process_time()
    with open_corpus(str(folder / "toy.yaml")) as reader:
        opened = time.perf_counter()
        wanted = reader.languages if languages == "all" else languages.split(",")
        pairs = sum(1 for _ in reader.rows(wanted))
    ended, cpu = time.perf_counter(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform != "darwin" else 1 << 20)
    return opened - started, ended - opened, pairs, cpu, peak


def main() -> None:
    """Write an export, and read it; each in a process of its own, since a process keeps the peak of all that it did."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--sentences", type=positive, default=1_000_000, help="of the export")
    parser.add_argument("--languages", nargs="+", default=["de", "all"], help="those read beside English, or all")
    options = parser.parse_args()
    about = circumstances(["nmt-moe"])
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="nmt-tatoeba-") as name:
        folder = Path(name)
        for languages in (None, *options.languages):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                if languages is None:
                    pool.submit(write_export, folder, options.sentences).result()
                    continue
                opening, reading, pairs, cpu, peak = pool.submit(read_export, folder, languages).result()
            speed = f"{options.sentences / cpu:,.0f}"
            rows.append(
                [languages, f"{pairs:,}", f"{opening:.1f}", f"{reading:.1f}", f"{cpu:.1f}", speed, f"{peak:,.0f}"]
            )
    head = ["read", "pairs", "s to open", "s to read", "CPU s", "sentences per CPU s", "MiB at the peak"]
    print_table(head, rows)


if __name__ == "__main__":
    main()
