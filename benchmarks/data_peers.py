"""Peers of `data_throughput.py`: Hugging Face `datasets` and PyTorch's `DataLoader`, as users write such streams.

Each draws examples by the same temperature, shuffles, packs by first fit into open rows in a loop over examples, and
fills the eight arrays of a batch. They differ in where the ids lie: in Arrow files that are mapped into memory, in flat
NumPy files that are, or in lists of Python, which are fast but must fit into memory; and in how batches are filled:
pair by pair, as such code is mostly written, or without any loop over pairs.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LENGTH = 128
ROWS = 64
TAG, BEGIN, END = 4, 1, 2
_OPEN = 16  # rows that are filled at the same time: with more, scanning them takes longer than it gains
_SHUFFLED = 8192  # examples in a buffer of `datasets`
_DRAWN_AT_ONCE = 1 << 17

Example = tuple[Any, Any, int]  # ids of the source, ids of the target, direction
Arrays = dict[str, np.ndarray]


class Corpus(NamedTuple):
    """Pairs of D directions, those of a direction after those of the one before.

    Attributes:
      sizes: pairs of every direction [L].
      ids: of all pairs, source and target by turns.
      ends: where the sources and the targets end in them [2N].
    """

    sizes: list[int]
    ids: np.ndarray
    ends: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The probability of every direction at T = 5."""
        weights = np.array(self.sizes) ** 0.2
        return weights / weights.sum()

    def lists(self) -> list[Example]:
        """Return all pairs as lists of Python."""
        ids, bounds = self.ids.tolist(), [0, *self.ends.tolist()]
        sides = [ids[a:b] for a, b in itertools.pairwise(bounds)]
        directions = np.repeat(np.arange(len(self.sizes)), self.sizes).tolist()
        return list(zip(sides[::2], sides[1::2], directions, strict=True))


def interleaved(folder: Path, corpus: Corpus) -> Iterator[Arrays]:
    """Yield batches of `datasets.interleave_datasets` over a set in Arrow files for every direction."""
    import datasets

    datasets.disable_progress_bars()
    pairs, ends = corpus.lists(), np.cumsum(corpus.sizes).tolist()
    parts = []
    for number, (begin, end) in enumerate(itertools.pairwise([0, *ends])):
        source, target, direction = zip(*pairs[begin:end], strict=True)
        whole = datasets.Dataset.from_dict({"source": source, "target": target, "direction": direction})
        whole.save_to_disk(folder / "arrow" / str(number))
        stored = datasets.load_from_disk(folder / "arrow" / str(number)).to_iterable_dataset()
        parts.append(stored.with_format("numpy").repeat(None))  # somewhat faster than lists
    mixed = datasets.interleave_datasets(parts, probabilities=corpus.shares.tolist(), seed=1)
    shuffled = mixed.shuffle(seed=1, buffer_size=_SHUFFLED)
    return _batches((row["source"], row["target"], int(row["direction"])) for row in shuffled)


def loaded_from_lists(folder: Path, corpus: Corpus) -> Iterator[Arrays]:
    """Yield batches of a `DataLoader` over a list of all pairs in memory."""
    return _batches(_loaded(corpus.lists(), corpus))


def loaded_plainly(folder: Path, corpus: Corpus) -> Iterator[Arrays]:
    """Yield batches of a `DataLoader` over flat files that are mapped into memory, filled pair by pair."""
    return _batches(_loaded(_mapped(folder, corpus), corpus), _assembled_by_pair)


def loaded_from_files(folder: Path, corpus: Corpus) -> Iterator[Arrays]:
    """Yield batches of a `DataLoader` over flat files that are mapped into memory."""
    return _batches(_loaded(_mapped(folder, corpus), corpus))


def _mapped(folder: Path, corpus: Corpus) -> "_Mapped":
    np.save(folder / "ids.npy", corpus.ids.astype(np.uint16))
    np.save(folder / "ends.npy", np.concatenate([[0], corpus.ends]))
    return _Mapped(folder, corpus.sizes)


class _Mapped:
    """A map-style data set."""

    def __init__(self, folder: Path, sizes: list[int]):
        self._ids, self._ends = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "ends"))
        self._ids = self._ids.view(np.ndarray)  # slices of a plain view are faster than those of a memmap
        self._directions = np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self) -> int:
        return len(self._directions)

    def __getitem__(self, index: int) -> Example:
        begin, middle, end = self._ends[2 * index : 2 * index + 3].tolist()
        return self._ids[begin:middle], self._ids[middle:end], int(self._directions[index])


def _loaded(pairs: Any, corpus: Corpus) -> Iterator[Example]:
    import torch
    from torch.utils.data import DataLoader, WeightedRandomSampler

    torch.set_num_threads(1)
    sizes = np.array(corpus.sizes)
    weights: Any = torch.from_numpy(np.repeat(corpus.shares / sizes, sizes))
    sampler = WeightedRandomSampler(weights, _DRAWN_AT_ONCE, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(pairs, batch_size=256, sampler=sampler, collate_fn=list)
    while True:
        for some in loader:
            yield from some


def _packed(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield rows: an example goes into the first open row with room; where none has any, the fullest is closed."""
    source_room, target_room = [LENGTH] * _OPEN, [LENGTH] * _OPEN
    rows: list[list[Example]] = [[] for _ in range(_OPEN)]
    for example in examples:
        source, target = len(example[0]) + 2, len(example[1]) + 1
        for row in range(_OPEN):
            if source_room[row] >= source and target_room[row] >= target:
                break
        else:
            rooms = [*map(min, source_room, target_room)]
            row = rooms.index(min(rooms))
            yield rows[row]
            rows[row], source_room[row], target_room[row] = [], LENGTH, LENGTH
        rows[row].append(example)
        source_room[row] -= source
        target_room[row] -= target


def _assembled(rows: Sequence[list[Example]]) -> Arrays:
    counts = [len(row) for row in rows]
    examples = [*itertools.chain.from_iterable(rows)]
    row = np.repeat(np.arange(len(rows)), counts)
    segment = np.concatenate([np.arange(1, count + 1) for count in counts])
    src = _side([source for source, _, _ in examples], [TAG], [END], row, segment)
    tgt = _side([target for _, target, _ in examples], [BEGIN], [], row, segment)
    end = _side([target for _, target, _ in examples], [], [END], row, segment)
    direction = _spread(np.array([direction for _, _, direction in examples]), tgt["lengths"], tgt["slots"])
    return {
        "src": src["tokens"],
        "src_segment": src["segment"],
        "src_position": src["position"],
        "tgt_in": tgt["tokens"],
        "tgt_out": end["tokens"],
        "tgt_segment": tgt["segment"],
        "tgt_position": tgt["position"],
        "direction": direction,
    }


def _assembled_by_pair(rows: Sequence[list[Example]]) -> Arrays:
    names = ("src", "src_segment", "src_position", "tgt_in", "tgt_out", "tgt_segment", "tgt_position", "direction")
    batch = {name: np.zeros((ROWS, LENGTH), np.int32) for name in names}
    for number, row in enumerate(rows):
        s = t = 0
        for segment, (source, target, direction) in enumerate(row, 1):
            a, b = s + len(source) + 2, t + len(target) + 1
            batch["src"][number, s:a] = [TAG, *source, END]
            batch["src_segment"][number, s:a] = segment
            batch["src_position"][number, s:a] = np.arange(a - s)
            batch["tgt_in"][number, t:b] = [BEGIN, *target]
            batch["tgt_out"][number, t:b] = [*target, END]
            batch["tgt_segment"][number, t:b] = segment
            batch["tgt_position"][number, t:b] = np.arange(b - t)
            batch["direction"][number, t:b] = direction
            s, t = a, b
    return batch


def _side(ids: list[Any], head: list[int], tail: list[int], row: np.ndarray, segment: np.ndarray) -> Arrays:
    lengths = np.array([len(one) for one in ids]) + len(head) + len(tail)
    begins = np.cumsum(lengths) - lengths
    first_of_row = np.searchsorted(row, np.arange(ROWS))
    places = row * LENGTH + begins - begins[first_of_row][row]
    position = np.arange(lengths.sum()) - np.repeat(begins, lengths)
    slots = np.repeat(places, lengths) + position
    if isinstance(ids[0], list):
        parts = itertools.chain.from_iterable(itertools.chain(head, one, tail) for one in ids)
        tokens = np.fromiter(parts, np.int32, len(slots))
    else:
        tokens = np.concatenate([part for one in ids for part in (head, one, tail) if len(part)])
    arrays = {"tokens": tokens, "segment": np.repeat(segment, lengths), "position": position}
    return {name: _put(values, slots) for name, values in arrays.items()} | {"lengths": lengths, "slots": slots}


def _spread(values: np.ndarray, lengths: np.ndarray, slots: np.ndarray) -> np.ndarray:
    return _put(np.repeat(values, lengths), slots)


def _put(values: np.ndarray, slots: np.ndarray) -> np.ndarray:
    array = np.zeros((ROWS, LENGTH), np.int32)
    array.reshape(-1)[slots] = values
    return array


def _batches(
    examples: Iterable[Example], assemble: Callable[[Sequence[list[Example]]], Arrays] = _assembled
) -> Iterator[Arrays]:
    rows = _packed(examples)
    while True:
        yield assemble(list(itertools.islice(rows, ROWS)))
