"""Preparation and mixing of a synthetic corpus of 200 directions: pairs a second and peak memory of every stage.

    python benchmarks/prepare_memory.py                     # 200,000 pairs
    python benchmarks/prepare_memory.py --pairs 50000000    # about 20 GB of disk below --folder

Sentences are drawn from 50,000 made-up words; languages have skewed sizes; 5% of rows repeat an earlier one. Beside
the speed of cleaning stands that of SentencePiece's own `encode`, on one thread, on both sides of the same pairs.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from nmt.config import CleanConfig, DataConfig, VocabConfig
from nmt.corpora.cleaned.build import CleaningJob, build
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.declare.spec_split import HashedSplits
from nmt.corpora.parallel import available_cores
from nmt.corpora.readers.reader import Row
from nmt.languages import Direction, all_languages

AT_ONCE, COMPONENT = 5000, 1000
MEGABYTE = 1 << 20


class Synthetic:
    """An open corpus of made-up rows: English and one other language each."""

    provenance, unreadable = (), ()

    def __init__(self, rows: int, languages: list[str]):
        self._rows, self._languages = rows, languages
        self.skipped: dict[str, int] = {}
        self.spec = SimpleNamespace(split=HashedSplits(test=1, dev=1), name="synthetic", monolingual=False)
        letters = np.array(list("abcdefghijklmnoprstuvwyz"))
        generator = np.random.default_rng(1)
        lengths = generator.integers(2, 10, 50_000)
        self._words = ["".join(letters[generator.integers(0, len(letters), length)]) for length in lengths]

    def rows(self, wanted: object) -> Iterator[Row]:
        weights = 1 / np.arange(1, len(self._languages) + 1) ** 0.7
        for start in range(0, self._rows, AT_ONCE):
            generator = np.random.default_rng([2, start])
            codes = generator.choice(len(self._languages), AT_ONCE, p=weights / weights.sum())
            sentences = [self._sentences(generator) for _ in "ab"]
            for i in range(min(AT_ONCE, self._rows - start)):
                text = sentences[0][i if i % 20 else 0]
                yield Row("en", f"c{(start + i) // COMPONENT}", (), text, {self._languages[codes[i]]: sentences[1][i]})

    def _sentences(self, generator: np.random.Generator) -> list[str]:
        lengths = generator.integers(8, 24, AT_ONCE)
        words = (generator.random(lengths.sum()) ** 3 * len(self._words)).astype(int)
        ends = np.cumsum(lengths)
        return [
            " ".join(self._words[word] for word in words[end - length : end])
            for end, length in zip(ends, lengths, strict=True)
        ]


class Clock:
    """Measures stages.

    Memory is that of this process and its children at a time. Anonymous memory is what must be there; pages of mapped
    files count to "resident" too while nothing else wants the room. Linux only.
    """

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._peak = {"RssAnon": 0.0, "VmRSS": 0.0}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def measure(self, name: str, pairs: int, work: Any) -> Any:
        with self._lock:
            self._peak = dict.fromkeys(self._peak, 0.0)
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        self._sample()
        self.stages[name] = {
            "seconds": seconds,
            "pairs/s": pairs / seconds,
            "anonymous MB": self._peak["RssAnon"],
            "resident MB": self._peak["VmRSS"],
        }
        line = "  ".join(f"{key} {value:>12,.1f}" for key, value in self.stages[name].items())
        print(f"{name:<12}{line}", flush=True)
        return result

    def _watch(self) -> None:
        while True:
            self._sample()
            time.sleep(0.2)

    def _sample(self) -> None:
        total = dict.fromkeys(self._peak, 0.0)
        children = " ".join(_read(path) for path in Path("/proc/self/task").glob("*/children"))
        for process in ("self", *children.split()):
            found = (line.split() for line in _read(Path(f"/proc/{process}/status")).splitlines())
            for name, size in ((words[0].rstrip(":"), words[1]) for words in found if len(words) == 3):
                if name in total:
                    total[name] += int(size) / 1024
        with self._lock:
            self._peak = {kind: max(size, total[kind]) for kind, size in self._peak.items()}


def _read(path: Path) -> str:
    """Return what Linux tells of a process or thread; nothing if it has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def encoded(corpus: Corpus, model: Path, pairs: int) -> int:
    """Encode both sides of some pairs as spm_encode would, and return how many there were."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    done = 0
    for splits in corpus.pairs.values():
        for source, target in splits["train"]:
            processor.encode(source, num_threads=1)
            processor.encode(target, num_threads=1)
            done += 1
            if done == pairs:
                return done
    return done


def mixed(folder: Path, data: DataConfig, directions: list[Direction], batches: int) -> int:
    """Draw batches from the mixture, and return their number."""
    from nmt.data.pipeline import train_batches

    stream = iter(train_batches(folder, directions, data, 64, 1))
    for _ in range(batches):
        next(stream)
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200_000, help="pairs over all directions (default: %(default)s)")
    parser.add_argument("--directions", type=int, default=200, help="an even number (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=100, help="batches that are drawn (default: %(default)s)")
    parser.add_argument("--folder", help="where the data goes (default: a temporary folder)")
    parser.add_argument("--json", help="write all figures to this file")
    arguments = parser.parse_args()
    # Of scripts whose letters are not Latin, made-up words would be rejected.
    codes = [one.code for one in all_languages() if one.script == "Latn" and one.code != "en"]
    codes = codes[: arguments.directions // 2]
    directions = [Direction(*pair) for code in codes for pair in ((code, "en"), ("en", code))]
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        root = Path(name)
        (root / "cleaned").mkdir()
        corpora: Any = SimpleNamespace(sources=(Synthetic(arguments.pairs // 2, codes),), failures={})
        job = CleaningJob("digest", directions, CleanConfig(), arguments.workers)
        corpus = clock.measure("clean", arguments.pairs, lambda: build(root / "cleaned", corpora, job))
        # Processes that clean import this file, and need none of these.
        from nmt.corpora.cleaned.texts import training_texts
        from nmt.data.store import RowLengths, StoreOrigin, load_stats, prepare
        from nmt.data.vocab import learn
        from nmt.data.vocabularies import Vocabularies

        kept = sum(splits["train"].pairs for splits in corpus.sizes.values())
        languages = sorted({"en", *codes})
        config = VocabConfig(size=8000, sentences=min(200_000, kept))
        file = root / "vocab.model"
        vocabulary = clock.measure(
            "vocabulary", kept, lambda: learn(training_texts(corpus, (0, 1)), languages, config, file, 1)
        )
        shared, lengths = Vocabularies.shared(vocabulary), RowLengths(128, 128)
        clock.measure(
            "prepare",
            kept,
            lambda: prepare(
                corpus.pairs, shared, root / "data", lengths=lengths, origin=StoreOrigin(rejected=corpus.rejections)
            ),
        )
        data = DataConfig(corpora=("x",), directions=tuple(map(str, directions)), source_length=128, target_length=128)
        stored = sum(one.splits["train"].pairs for one in load_stats(root / "data").directions.values())
        clock.measure("mix", stored, lambda: mixed(root / "data", data, directions, arguments.batches))
        some = min(kept, 50_000)
        clock.measure("spm_encode", some, lambda: encoded(corpus, file, some))
    clean, peer = clock.stages["clean"]["pairs/s"], clock.stages["spm_encode"]["pairs/s"]
    peak = max(stage["anonymous MB"] for stage in clock.stages.values())
    print(f"cleaning with {arguments.workers} processes: {clean / peer:.2f} of the speed of spm_encode on one thread")
    print(f"preparing with {available_cores()} cores: {clock.stages['prepare']['pairs/s'] / peer:.2f} of it")
    print(f"peak memory of all processes: {peak:,.0f} MB (JAX and its libraries included)")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"pairs": arguments.pairs, "pid": os.getpid(), **clock.stages}))


if __name__ == "__main__":
    main()
