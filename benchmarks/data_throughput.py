"""From text to the prepared store, and from the store to packed batches, on one core, beside what a user has instead.

    taskset -c 0 python benchmarks/data_throughput.py

A made-up store of 200 directions whose sizes fall like a power law is mixed at T = 5, shuffled and packed. The peers
(`data_peers.py`) draw the same pairs with the same probabilities and fill rows of the same lengths with the same
fields. Two fill their batches as such code is mostly written, two as well as NumPy can, one of which keeps all pairs in
memory, as none can do with a large corpus.
Beside preparation, from text to the store, stands SentencePiece's own `encode` of the same text with one thread.
Rounds are interleaved, the best one of each counts; time is that of the processor, of all threads of the process.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from data_peers import (
    BEGIN,
    END,
    LENGTH,
    ROWS,
    Arrays,
    Corpus,
    interleaved,
    loaded_from_files,
    loaded_from_lists,
    loaded_plainly,
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")

LEAST, AHEAD = 400_000, 3  # target tokens/s of one core, and times as fast as each peer
WARM_UP = 8
PLAIN = {"datasets.interleave_datasets, Arrow": interleaved, "DataLoader, mapped, pair by pair": loaded_plainly}
BOUNDED = PLAIN | {"DataLoader, mapped, vectorised": loaded_from_files}
PEERS = BOUNDED | {"DataLoader, in memory, vectorised": loaded_from_lists}
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--directions", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="pairs in all directions together")
    parser.add_argument("--batches", type=int, default=200, help="timed batches of every round")
    parser.add_argument("--prepared", type=int, default=20_000, help="pairs that are prepared in every round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, sizes = Path(name), _sizes(arguments.directions, arguments.pairs)
        print(f"writing {sum(sizes):,} pairs of {len(sizes)} directions (sizes {min(sizes):,} to {max(sizes):,})")
        corpus = _made_up(sizes)
        systems = {"nmt": _ours(folder, corpus, stack)}
        for peer, make in PEERS.items():
            try:
                systems[peer] = make(folder, corpus)
            except ImportError as error:
                print(f"{peer}: left out ({error}); pip install 'nmt-moe[bench]'")
        streams = _measured(systems, arguments.batches, arguments.rounds)
        preparing = _preparation(folder, arguments.prepared, arguments.rounds)
    _print(streams, preparing)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"streams": streams, "pairs/s": preparing}, indent=1) + "\n")


def _print(streams: dict[str, Figures], preparing: Figures) -> None:
    ours = streams["nmt"]["target tokens/s"]
    for name, row in streams.items():
        print(
            f"{name:<36}{row['target tokens/s']:>11,.0f} target tokens/s  {row['examples/s']:>9,.0f} examples/s  "
            f"fill {row['fill']:.3f}" + ("" if name == "nmt" else f"  nmt: {ours / row['target tokens/s']:.1f} x")
        )
    print(f"{LEAST:,} target tokens/s on one core: {'reached' if ours >= LEAST else 'not reached'}")
    for kind, peers in (("plainly written peers", PLAIN), ("all peers of bounded memory", BOUNDED), ("all", PEERS)):
        if peers.keys() <= streams.keys():
            ahead = ours / max(streams[name]["target tokens/s"] for name in peers)
            print(f"{AHEAD} x {kind}: {'reached' if ahead >= AHEAD else 'not reached'} ({ahead:.1f} x the fastest)")
    for name, speed in preparing.items():
        print(f"{name:<36}{speed:>11,.0f} pairs/s")
    first, second = preparing.values()
    print(f"preparation, encoding included, has {first / second:.2f} of the speed of SentencePiece's encode alone")


def _measured(systems: dict[str, Iterator[Arrays]], batches: int, rounds: int) -> dict[str, Figures]:
    """Return the best round of every system."""
    best: dict[str, Figures] = {}
    for iterator in systems.values():
        for _ in range(WARM_UP):
            _check(next(iterator))
    for _ in range(rounds):
        for name, iterator in systems.items():
            started = time.process_time()
            made = [next(iterator) for _ in range(batches)]
            seconds = time.process_time() - started
            source, target = (sum(int((one[f"{side}_segment"] > 0).sum()) for one in made) for side in ("src", "tgt"))
            row = {
                "target tokens/s": target / seconds,
                "examples/s": sum(int(one["tgt_segment"].max(axis=1).sum()) for one in made) / seconds,
                "fill": max(source, target) / (batches * ROWS * LENGTH),
            }
            if name not in best or row["target tokens/s"] > best[name]["target tokens/s"]:
                best[name] = row
    return best


def _check(batch: Arrays) -> None:
    """Raise AssertionError if a batch is not what all systems have to make."""
    for side in ("src", "tgt"):
        segment, position = batch[f"{side}_segment"], batch[f"{side}_position"]
        assert segment.shape == position.shape == (ROWS, LENGTH)
        first = (segment > 0) & (np.diff(segment, prepend=0) != 0)
        assert np.array_equal(first, (segment > 0) & (position == 0))
        assert np.array_equal(segment.max(axis=1), first.sum(axis=1))
    inside = batch["tgt_position"] > 0
    assert np.array_equal(batch["tgt_in"][inside], np.roll(batch["tgt_out"], 1)[inside])
    starts = (batch["tgt_segment"] > 0) & ~inside
    assert (batch["tgt_in"][starts] == BEGIN).all()
    assert (batch["tgt_out"] == END).sum() == (batch["src"] == END).sum() == starts.sum()


def _sizes(directions: int, pairs: int) -> list[int]:
    weights = 1 / np.arange(1, directions + 1)
    return [max(50, int(pairs * weight / weights.sum())) for weight in weights]


def _made_up(sizes: list[int]) -> Corpus:
    """Return random ids; lengths are log-normal, as those of sentences are."""
    rng, pairs = np.random.default_rng(1), sum(sizes)
    target = np.clip(rng.lognormal(3.0, 0.5, pairs), 3, LENGTH - 8).astype(int)
    source = np.clip(target * rng.lognormal(0, 0.15, pairs), 3, LENGTH - 8).astype(int)
    ends = np.cumsum(np.stack([source, target], 1).reshape(-1))
    return Corpus(sizes, rng.integers(300, 32000, ends[-1]), ends)


def _ours(folder: Path, corpus: Corpus, stack: contextlib.ExitStack) -> Iterator[Arrays]:
    from etils import epath

    from nmt.config import DataConfig
    from nmt.data.pipeline import train_batches
    from nmt.data.records import ShardWriter
    from nmt.data.store import _STATS_TYPE, DirectionStats, RowLengths, SplitStats, Stats
    from nmt.languages import Direction

    pairs, written = iter(corpus.lists()), {}
    directions = [Direction(f"x{number}", "en") for number in range(len(corpus.sizes))]
    for direction, size in zip(directions, corpus.sizes, strict=True):
        sources, targets, _ = zip(*[next(pairs) for _ in range(size)], strict=True)
        with contextlib.closing(ShardWriter(epath.Path(folder) / "train" / str(direction), 10**7, 2)) as writer:
            writer.write(sources, targets)
        split = SplitStats(size, sum(map(len, sources)), sum(map(len, targets)), [size])
        written[str(direction)] = DirectionStats(4, {}, {"train": split})
    stats = Stats({}, RowLengths(LENGTH, LENGTH), written, [])
    (folder / "stats.json").write_bytes(_STATS_TYPE.dump_json(stats))
    data = DataConfig(corpora=("x",), directions=("x-en",), temperature=5.0, source_length=LENGTH, target_length=LENGTH)
    batches = stack.enter_context(contextlib.closing(train_batches(folder, directions, data, ROWS, 1)))
    return (vars(batch) for batch in batches)


def _preparation(folder: Path, pairs: int, rounds: int) -> Figures:
    """Return pairs a second of preparation and of SentencePiece's encode of the same text, the best round of each."""
    import sentencepiece

    from nmt.config import VocabConfig
    from nmt.data.store import RowLengths, prepare
    from nmt.data.vocab import learn
    from nmt.data.vocabularies import Vocabularies
    from nmt.languages import Direction

    text = _sentences(pairs)
    config, file = VocabConfig(size=8000, sentences=pairs), folder / "vocab.model"
    vocabularies = Vocabularies.shared(learn(dict(zip(("de", "en"), text, strict=True)), ("de", "en"), config, file, 1))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))

    def ours() -> None:
        train = {Direction("de", "en"): {"train": zip(*text, strict=True)}}
        prepare(train, vocabularies, folder / "prepared", lengths=RowLengths(LENGTH, LENGTH))

    def peer() -> None:
        for side in text:
            processor.encode(side, num_threads=1)

    works: dict[str, Callable[[], None]] = {"nmt, text to store": ours, "SentencePiece's encode": peer}
    best: Figures = {}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            best[name] = max(best.get(name, 0.0), pairs / (time.process_time() - started))
    return best


def _sentences(pairs: int) -> tuple[list[str], list[str]]:
    """Return both sides of pairs of made-up words whose frequencies are as skewed as those of real ones."""
    rng, letters = np.random.default_rng(1), np.array(list("abcdefghijklmnoprstuvwyz"))
    words = np.array(["".join(letters[rng.integers(0, len(letters), size)]) for size in rng.integers(2, 10, 50_000)])
    sides = []
    for _ in range(2):
        ends = np.cumsum(rng.integers(8, 24, pairs))
        drawn = words[(rng.random(ends[-1]) ** 3 * len(words)).astype(int)].tolist()
        sides.append([" ".join(drawn[a:b]) for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)])
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
