"""Fuzzy overlap with held-out text, by word n-grams.

A text is represented by the set of its word n-grams, after `fold`. In scripts without spaces, letters count as words; a
text of fewer than n words is a single gram.

A text overlaps with a held-out text if it contains at least the share `least` of the held-out text's grams. If the
held-out text has fewer than 8 grams, these must also be at least that share of the text's own grams; otherwise a short
held-out text ("Enter the code") would reject every sentence that contains it.

Memory is bounded: grams of more than 1,000 held-out texts, which tell nothing, are left out, and of more than 2^25
grams a random sample is kept, chosen by hash. The index takes at most 0.5 GB, and 1.5 GB while it is built.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from nmt.corpora.clean.text import fold_words

FEW_GRAMS = 8
MOST_TEXTS_OF_A_GRAM = 1000
MOST_GRAMS = 1 << 25
_AT_ONCE = 4096
_FACTOR = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: odd, and its bits are even
_MASK = (1 << 64) - 1


class Grams(NamedTuple):
    """The distinct n-grams of some texts.

    Attributes:
      hashes: [K] uint64.
      texts: [K] int64, ascending: number of the text that contains each gram.
    """

    hashes: np.ndarray
    texts: np.ndarray


def find_grams(texts: Sequence[str], n: int) -> Grams:
    """Return the distinct n-grams of each text; a text without letters and digits has none."""
    hashed = [[_hash(token) for token in fold_words(text)] for text in texts]
    short = [(i, _hash_short_text(words)) for i, words in enumerate(hashed) if 0 < len(words) < n]
    flat = np.array([word for words in hashed for word in words], np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(words) for words in hashed])
    starts = max(0, len(flat) - n + 1)
    combined = np.zeros(starts, np.uint64)
    for k in range(n):
        combined = combined * np.uint64(_FACTOR) + flat[k : k + starts]
    within = owner[:starts] == owner[n - 1 :] if starts else np.zeros(0, bool)
    hashes = np.concatenate([combined[within], np.array([value for _, value in short], np.uint64)])
    owners = np.concatenate([owner[:starts][within], np.array([i for i, _ in short], np.int64)])
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    first = np.ones(len(owners), bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return Grams(hashes[first], owners[first])


class OverlapIndex(NamedTuple):
    """The n-grams of held-out texts, sorted for binary search. H: number of held-out texts, K: of grams.

    Attributes:
      hashes: [K] uint64, ascending; a gram of several texts is repeated.
      texts: [K] int32: number of the held-out text that contains each gram.
      sizes: [H] int32: number of distinct grams of each held-out text.
      n: words of a gram.
      least: least share of a held-out text's grams that counts as overlap.
      every: one gram of so many is in the index, a power of two.
    """

    hashes: np.ndarray
    texts: np.ndarray
    sizes: np.ndarray
    n: int
    least: float
    every: int = 1

    @classmethod
    def build(cls, texts: Iterable[str], n: int, least: float, most_grams: int = MOST_GRAMS) -> Self:
        """Return the index of held-out texts, which are read once; for the other arguments see the attributes.

        Args:
          texts: the held-out texts.
          n: words of a gram.
          least: least share of grams.
          most_grams: of more grams a sample is kept.
        """
        hashes, owners, count = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], 0
        every, total = 1, 0
        for block in _blocks(texts):
            found = find_grams(block, n)
            kept = _sampled(found.hashes, every)
            hashes.append(found.hashes[kept])
            owners.append((found.texts[kept] + count).astype(np.int32))
            count, total = count + len(block), total + int(kept.sum())
            while total > most_grams:
                every *= 2
                keep = [_sampled(part, every) for part in hashes]
                hashes = [part[mask] for part, mask in zip(hashes, keep, strict=True)]
                owners = [part[mask] for part, mask in zip(owners, keep, strict=True)]
                total = sum(map(len, hashes))
        flat, held = np.concatenate(hashes), np.concatenate(owners)
        del hashes, owners  # hundreds of megabytes, and sorting needs as many
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        held = held[order]
        del order
        rare = _rare(flat)
        flat, held = flat[rare], held[rare]
        return cls(flat, held, np.bincount(held, minlength=count).astype(np.int32), n, least, every)

    def save(self, folder: Path) -> None:
        """Write the index to a folder."""
        for name in ("hashes", "texts", "sizes"):
            with (folder / f"{name}.npy").open("wb") as file:
                np.save(file, getattr(self, name))
        (folder / "rule.json").write_text(json.dumps([self.n, self.least, self.every]))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the index of a folder; its arrays are shared by all processes that load it."""
        hashes, texts, sizes = (_loaded(folder / f"{name}.npy") for name in ("hashes", "texts", "sizes"))
        n, least, every = json.loads((folder / "rule.json").read_text())
        return cls(hashes, texts, sizes, n, least, every)

    def overlapping(self, texts: Sequence[str]) -> np.ndarray:
        """Return whether each text overlaps with any held-out text, as an array [len(texts)] of bool."""
        result = np.zeros(len(texts), bool)
        result[self.matches(texts)[0]] = True
        return result

    def matches(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return which texts overlap with which held-out texts: the numbers of both, [K] int64 each."""
        none = np.zeros(0, np.int64)
        if not len(self.hashes) or not texts:
            return none, none
        found = find_grams(texts, self.n)
        kept = _sampled(found.hashes, self.every)
        found = Grams(found.hashes[kept], found.texts[kept])
        low = np.searchsorted(self.hashes, found.hashes, "left")
        times = np.searchsorted(self.hashes, found.hashes, "right") - low
        if not (matches := int(times.sum())):
            return none, none
        # One entry for each gram that a text shares with a held-out text.
        place = np.arange(matches) - np.repeat(np.cumsum(times) - times, times) + np.repeat(low, times)
        pairs = np.repeat(found.texts, times) * len(self.sizes) + self.texts[place]
        shared, hits = np.unique(pairs, return_counts=True)
        own, held = np.divmod(shared, len(self.sizes))
        sizes, own_sizes = self.sizes[held], np.bincount(found.texts, minlength=len(texts))[own]
        near = (hits >= self.least * sizes) & ((sizes * self.every >= FEW_GRAMS) | (hits >= self.least * own_sizes))
        return own[near], held[near]


def _loaded(path: Path) -> np.ndarray:
    loaded: np.ndarray = np.load(path, mmap_mode="r")
    return loaded


def _blocks(texts: Iterable[str]) -> Iterable[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == _AT_ONCE:
            yield block
            block = []
    if block:
        yield block


def _sampled(hashes: np.ndarray, every: int) -> np.ndarray:
    """Return the mask [K] (bool) of the hashes in a sample of one in `every`, a power of two."""
    return (hashes >> np.uint64(40)) % np.uint64(every) == 0


def _rare(ascending: np.ndarray) -> np.ndarray:
    """Return the mask [K] (bool) of elements that occur at most `MOST_TEXTS_OF_A_GRAM` times."""
    begins = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]][: len(ascending)])
    times = np.diff(begins, append=len(ascending))
    return np.repeat(times <= MOST_TEXTS_OF_A_GRAM, times)


@functools.lru_cache(maxsize=1 << 18)
def _hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _hash_short_text(words: Sequence[int]) -> int:
    """Return the hash of the only gram of a text of fewer than n words; it depends on their number, too."""
    value = len(words)
    for word in words:
        value = (value * _FACTOR + word) & _MASK
    return value
