"""Time and memory of reading an export of Tatoeba's size, made up: sentences of 16 languages and links between them.

    python benchmarks/tatoeba.py --sentences 1000000

Every sentence is linked to two others, in both directions. Printed are the seconds of opening (which looks for the
languages) and of reading all German-English pairs, and all pairs there are, with the largest resident memory.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    """Measure, in a process of its own for each line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where an export was written, by --write; empty: a temporary one")
    parser.add_argument("--write", action="store_true", help="only write the export into --folder")
    parser.add_argument("--languages", default="de", help="those read beside English, or all")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="nmt-tatoeba-"))
    if options.write or not options.folder:
        write_export(folder, options.sentences)
    if options.write:
        return
    started, cpu = time.perf_counter(), time.process_time()
    with open_corpus(str(folder / "toy.yaml")) as reader:
        opened = time.perf_counter()
        wanted = reader.languages if options.languages == "all" else options.languages.split(",")
        pairs = sum(1 for _ in reader.rows(wanted))
    ended, cpu = time.perf_counter(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform != "darwin" else 1 << 20)
    print(
        f"{options.sentences:,} sentences, {options.languages}: opened in {opened - started:.1f} s, {pairs:,} pairs in "
        f"{ended - opened:.1f} s ({options.sentences / (ended - opened):,.0f} sentences/s; CPU {cpu:.1f} s in all), "
        f"peak {peak:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
